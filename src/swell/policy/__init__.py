"""Pure decisions: functions of what is passed in. Nothing here waits, logs, or reads a clock."""
