// The pages under test, and the modules that they load.
import { readFile } from 'node:fs/promises';

const HERE = new URL('../pages/', import.meta.url);
const WEB = new URL('../../../', import.meta.url);

const HTML = 'text/html; charset=utf-8';
const SCRIPT = 'text/javascript; charset=utf-8';

/** Path → file, as a site would lay them out. */
const FILES = {
  '/page': [HTML, new URL('page.html', HERE)],
  '/sources/native.js': [SCRIPT, new URL('native.js', HERE)],
  '/sources/module.js': [SCRIPT, new URL('module.js', HERE)],
  '/token.js': [SCRIPT, new URL('token.js', HERE)],
  '/resilient-sse.js': [SCRIPT, new URL('resilient-sse.js', WEB)],
};

/** What lies under a path, if it is one of the pages. */
export async function pages(path) {
  const file = FILES[path.split('?')[0]];
  return file && { type: file[0], body: await readFile(file[1]) };
}
