"""Every alert sink keeps the contract of its port, the fake included."""

import pytest

from swell.testing.alert_sink_suite import AlertSinkHarness, AlertSinkSuite


class TestFakeAlertSink(AlertSinkSuite):
    @pytest.fixture
    def harness(self, fake_harness: AlertSinkHarness) -> AlertSinkHarness:
        return fake_harness


class TestWebhookSink(AlertSinkSuite):
    @pytest.fixture
    def harness(self, webhook_harness: AlertSinkHarness) -> AlertSinkHarness:
        return webhook_harness


class TestSlackSink(AlertSinkSuite):
    @pytest.fixture
    def harness(self, slack_harness: AlertSinkHarness) -> AlertSinkHarness:
        return slack_harness


class TestEmailSink(AlertSinkSuite):
    @pytest.fixture
    def harness(self, email_harness: AlertSinkHarness) -> AlertSinkHarness:
        return email_harness


class TestCommandSink(AlertSinkSuite):
    @pytest.fixture
    def harness(self, command_harness: AlertSinkHarness) -> AlertSinkHarness:
        return command_harness
