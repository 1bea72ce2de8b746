// Runs scripts with a module of the page's, for tests/support/page_modules.py: a line of JSON in, a line out.
import { createInterface } from 'node:readline';

const AsyncFunction = (async () => {}).constructor;

for await (const line of createInterface({ input: process.stdin })) {
  const { module, script } = JSON.parse(line);
  let answer;
  try {
    answer = { value: await new AsyncFunction('m', script)(await import(module)) };
  } catch (error) {
    answer = { error: String(error?.stack ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
