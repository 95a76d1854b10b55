/**
 * Gives the hook and its tests one version of React: that of the folder which the variable REACT names. Node finds packages from
 * the importing file on, and `web/react.js` has none around it: a published package finds its user's React.
 *
 *     REACT=react/18 node --import ./react/harness/version.mjs --test react/*.test.mjs
 */
import { register } from 'node:module';
import { pathToFileURL } from 'node:url';

const folder = process.env.REACT ?? '.';
register('./resolve.mjs', import.meta.url, { data: { from: String(pathToFileURL(`${folder}/package.json`)) } });
