// Scripts that use the hook, each bundled with a version of React.
import { fileURLToPath } from 'node:url';
import { build } from 'vite';

const TESTS = new URL('../../', import.meta.url);
const HOOK = fileURLToPath(new URL('../react.js', TESTS));

/**
 * @param {string} entry a file
 * @param {string} folder where React is installed, below `web/tests`
 */
export async function bundle(entry, folder) {
  const packages = fileURLToPath(new URL(`${folder}/node_modules/`, TESTS));
  const [{ output }] = await build({
    configFile: false,
    logLevel: 'error',
    root: fileURLToPath(TESTS),
    resolve: {
      alias: [
        { find: 'resilient-sse/react', replacement: HOOK },
        // `web/react.js` finds no React of its own: a published package finds its user's.
        { find: /^(react|react-dom)(?=\/|$)/, replacement: `${packages}$1` },
      ],
    },
    // In development React's strict mode mounts twice.
    define: { 'process.env.NODE_ENV': '"development"' },
    build: {
      write: false,
      minify: false,
      lib: { entry, formats: ['es'] },
      rollupOptions: { external: ['/token.js'] },
    },
  });
  return output[0].code;
}
