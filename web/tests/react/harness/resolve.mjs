/** The hooks of `version.mjs`: they run in a thread of their own. */
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

let require;

export function initialize({ from }) {
  require = createRequire(from);
}

export function resolve(specifier, context, nextResolve) {
  if (!/^react(-dom)?(\/|$)/.test(specifier)) return nextResolve(specifier, context);
  return { url: String(pathToFileURL(require.resolve(specifier))), shortCircuit: true };
}
