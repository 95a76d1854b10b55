// OpenAI's SDK, given the server's URL and the names of the answers to ask for, all at once.
import OpenAI from 'openai';

const [base, ...names] = process.argv.slice(2);

async function ask(name) {
  // It retries by itself; where a test is about one answer, it is not to.
  const maxRetries = name === 'retried' ? 2 : 0;
  const client = new OpenAI({ apiKey: 'none', baseURL: `${base}/${name}`, maxRetries });
  const question = { model: 'test', messages: [{ role: 'user', content: 'Say hello.' }], stream: true };
  const saw = { name, text: '', error: null };
  let told = false;
  try {
    const stream = await client.chat.completions.create(question, { headers: { 'Idempotency-Key': name } });
    for await (const chunk of stream) {
      saw.text += chunk.choices[0].delta.content ?? '';
      if (told || !saw.text.endsWith('world')) continue;
      told = true;
      await fetch(`${base}/saw/${name}`, { method: 'POST' });
    }
  } catch (error) {
    const isApiError = error instanceof OpenAI.APIError;
    saw.error = { isApiError, status: error.status ?? null, code: error.code ?? null, message: String(error) };
  }
  return saw;
}

const saw = await Promise.all(names.map(ask));
await fetch(`${base}/report`, { method: 'POST', body: JSON.stringify(saw) });
