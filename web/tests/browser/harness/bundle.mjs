// The hook's page as one script, with the version of React that a test is about.
import { fileURLToPath } from 'node:url';
import { build } from 'vite';

const TESTS = new URL('../../', import.meta.url);

/** @param {string} folder where this React is installed, below `web/tests` */
export async function bundleHook(folder) {
  const packages = fileURLToPath(new URL(`${folder}/node_modules/`, TESTS));
  const [{ output }] = await build({
    configFile: false,
    logLevel: 'error',
    root: fileURLToPath(TESTS),
    // `web/react.js` finds no React of its own: a published package finds its user's.
    resolve: { alias: [{ find: /^(react|react-dom)(?=\/|$)/, replacement: `${packages}$1` }] },
    // In development React's strict mode mounts twice.
    define: { 'process.env.NODE_ENV': '"development"' },
    build: {
      write: false,
      minify: false,
      lib: { entry: fileURLToPath(new URL('browser/pages/hook.js', TESTS)), formats: ['es'] },
      rollupOptions: { external: ['/token.js'] },
    },
  });
  return output[0].code;
}
