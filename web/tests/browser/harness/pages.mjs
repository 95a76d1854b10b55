// The pages under test, and the modules that they load.
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { bundle } from './bundle.mjs';

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

/** Path → the React that the hook's page is bundled with, by the folder where it is installed. */
const BUNDLES = {
  '/sources/hook.js': '.',
  '/sources/hook-react-18.js': 'react/18',
};

const bundles = new Map();

/** Adds a page for all tests of this process. */
export function addPage(path, body) {
  added.set(path, { type: HTML, body });
}

const added = new Map();

/** What lies under a path, if it is one of the pages. */
export async function pages(path) {
  const [name] = path.split('?');
  if (added.has(name)) return added.get(name);
  if (name in FILES) return { type: FILES[name][0], body: await readFile(FILES[name][1]) };
  if (!(name in BUNDLES)) return undefined;
  if (!bundles.has(name)) bundles.set(name, bundle(fileURLToPath(new URL('hook.js', HERE)), BUNDLES[name]));
  return { type: SCRIPT, body: await bundles.get(name) };
}
