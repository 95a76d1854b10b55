/** The types of the hook in a strict project, with the types of this version of React, and the hook's own source. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const typescript = createRequire(import.meta.url).resolve('typescript/package.json');
const react = dirname(createRequire(resolve(process.env.REACT ?? '.', 'package.json')).resolve('@types/react/package.json'));

/** Checks a project of the folder `types`. `web/` has no packages around it, so the types of React are given by their path. */
async function check(t, project) {
  const types = { react: [join(react, 'index.d.ts')], 'react/jsx-runtime': [join(react, 'jsx-runtime.d.ts')] };
  const config = join(here, 'types', `.${project}-${process.pid}.json`);
  await writeFile(config, JSON.stringify({ extends: `./${project}.json`, compilerOptions: { paths: types } }));
  t.after(() => rm(config));
  return new Promise((done) => {
    const tsc = join(dirname(typescript), 'bin', 'tsc');
    execFile(process.execPath, [tsc, '-p', config, '--pretty', 'false'], (error, stdout, stderr) => done(error ? stdout + stderr : ''));
  });
}

test('a strict project', async (t) => assert.equal(await check(t, 'consumer'), ''));
test('the source of the hook', async (t) => assert.equal(await check(t, 'source'), ''));
