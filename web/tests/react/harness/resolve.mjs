/** The hooks of `version.mjs`: they run in a thread of their own. */
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

let require;

export function initialize({ from }) {
  require = createRequire(from);
}

export function resolve(specifier, context, nextResolve) {
  // As the examples of the documentation import it.
  if (specifier === 'resilient-sse/react') return nextResolve(new URL('../../../react.js', import.meta.url).href, context);
  if (!/^react(-dom)?(\/|$)/.test(specifier)) return nextResolve(specifier, context);
  return { url: String(pathToFileURL(require.resolve(specifier))), shortCircuit: true };
}
