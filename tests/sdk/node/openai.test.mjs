// The official OpenAI client for Node against a running Swell. OPENAI_BASE_URL, OPENAI_API_KEY and MODEL say where.
import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";

const model = process.env.MODEL;
const client = new OpenAI({ maxRetries: 0, timeout: 60_000 });
const messages = [{ role: "user", content: "Name three colours." }];

test("list names the model", async () => {
  const names = [];
  for await (const entry of client.models.list()) names.push(entry.id);
  assert.deepEqual(names, [model]);
});

test("chat", async () => {
  const answer = await client.chat.completions.create({ model, messages, max_tokens: 12 });
  assert.ok(answer.choices[0].message.content);
  assert.ok(answer.usage.completion_tokens >= 1 && answer.usage.completion_tokens <= 12);
});

test("stream", async () => {
  let text = "";
  const stream = await client.chat.completions.create({ model, messages, max_tokens: 12, stream: true });
  for await (const event of stream) {
    assert.equal(event.choices.length, 1);
    assert.ok(event.usage == null);
    text += event.choices[0].delta.content ?? "";
  }
  assert.ok(text);
});

test("stream with usage", async () => {
  const options = { model, messages, max_tokens: 6, stream: true, stream_options: { include_usage: true } };
  let last;
  for await (const event of await client.chat.completions.create(options)) last = event;
  assert.deepEqual(last.choices, []);
  assert.ok(last.usage.prompt_tokens > 5);
  assert.ok(last.usage.completion_tokens >= 1 && last.usage.completion_tokens <= 6);
});

test("cancel in the middle of a stream", async () => {
  const stream = await client.chat.completions.create({ model, messages, max_tokens: 400, stream: true });
  let seen = 0;
  for await (const _ of stream) {
    seen += 1;
    if (seen === 3) stream.controller.abort();
  }
  assert.ok(seen >= 3 && seen < 400);
});

test("embeddings", async () => {
  const answer = await client.embeddings.create({ model, input: ["a cat", "a theory"] });
  assert.equal(answer.data.length, 2);
  assert.equal(answer.data[0].embedding.length, answer.data[1].embedding.length);
  assert.ok(answer.data[0].embedding.length > 100);
});

test("a wrong key is an authentication error", async () => {
  const other = new OpenAI({ apiKey: "sk-swell-wrong", maxRetries: 0 });
  await assert.rejects(other.chat.completions.create({ model, messages }), OpenAI.AuthenticationError);
});

test("an unknown model is not found", async () => {
  await assert.rejects(client.chat.completions.create({ model: "gpt-4o", messages }), OpenAI.NotFoundError);
});

test("a prompt beyond the context is a bad request", async () => {
  const long = [{ role: "user", content: "word ".repeat(4000) }];
  await assert.rejects(client.chat.completions.create({ model, messages: long, max_tokens: 8 }), OpenAI.BadRequestError);
});
