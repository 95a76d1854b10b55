// What is published: its types, and the package in a project of its own.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFile, cp, mkdir, mkdtemp, readFile, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const tests = fileURLToPath(new URL('..', import.meta.url));
const web = join(tests, '..');
const tool = (name) => join(tests, 'node_modules', '.bin', name);

let folder;
let packed;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'resilient-sse-'));
  [packed] = JSON.parse(await succeed('npm', ['pack', '--json', '--pack-destination', folder]));
});
after(() => rm(folder, { recursive: true, force: true }));

/** Runs a program, and fails with what it said. */
async function succeed(program, args, options = {}) {
  try {
    return (await run(program, args, { cwd: web, timeout: 300_000, maxBuffer: 1 << 24, ...options })).stdout;
  } catch (error) {
    if (error.code === 'ENOENT') assert.fail(`${program} is missing: npm ci --prefix web/tests`);
    return assert.fail(`${program} ${args.join(' ')}: ${error.stdout}${error.stderr}`);
  }
}

/** Makes a project from its files, and installs the package in it from its tarball. */
async function freshProject(name) {
  const project = join(folder, name);
  await cp(join(tests, 'package', name), project, { recursive: true });
  await succeed('npm', ['install', '--no-audit', '--no-fund', '--offline', join(folder, packed.filename)], { cwd: project });
  return project;
}

/** Builds a project, and returns its code. */
async function build(project) {
  await succeed(tool('vite'), ['build', '--logLevel', 'warn'], { cwd: project });
  const assets = join(project, 'dist', 'assets');
  const names = (await readdir(assets)).filter((name) => name.endsWith('.js'));
  return (await Promise.all(names.map((name) => readFile(join(assets, name), 'utf8')))).join('');
}

test('tsc finds no fault in the source', () => succeed(tool('tsc'), ['-p', join(tests, 'types')]));

test('the declarations are those of the source', async () => {
  const place = join(folder, 'types');
  await mkdir(place);
  await copyFile(join(web, 'resilient-sse.js'), join(place, 'source.js'));
  await copyFile(join(web, 'resilient-sse.d.ts'), join(place, 'resilient-sse.d.ts'));
  await copyFile(join(tests, 'types', 'conformance.ts'), join(place, 'conformance.ts'));
  const { compilerOptions } = JSON.parse(await readFile(join(tests, 'types', 'tsconfig.json'), 'utf8'));
  await writeFile(join(place, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['conformance.ts'] }));
  await writeFile(join(place, 'package.json'), '{ "type": "module" }');
  await succeed(tool('tsc'), ['-p', place]);
});

test('what is published, and nothing else', () => {
  const files = packed.files.map(({ path }) => path).sort();
  assert.deepEqual(files, ['LICENSE', 'README.md', 'package.json', 'react.d.ts', 'react.js', 'resilient-sse.d.ts', 'resilient-sse.js']);
});

test('the package in a fresh Vite project, with types as strict as can be', async () => {
  const project = await freshProject('module');
  const installed = await readdir(join(project, 'node_modules'));
  assert.deepEqual(installed.filter((name) => !name.startsWith('.')), ['resilient-sse'], 'it brings nothing along');
  await succeed(tool('tsc'), ['-p', project]);
  await succeed(tool('tsc'), ['-p', project, '--module', 'nodenext', '--moduleResolution', 'nodenext']);
  assert.match(await build(project), /text\/event-stream/);
});

test('the hook in a fresh Vite project that has React', async () => {
  const project = await freshProject('react');
  await mkdir(join(project, 'node_modules', '@types'));
  for (const name of ['react', 'react-dom', '@types/react', '@types/react-dom']) {
    await symlink(join(tests, 'node_modules', name), join(project, 'node_modules', name));
  }
  await succeed(tool('tsc'), ['-p', project]);
  assert.match(await build(project), /text\/event-stream/);
});

test('what a page does not use is left out of its bundle', async () => {
  const project = await freshProject('module');
  await writeFile(join(project, 'src', 'main.ts'), "import { EventStreamParser } from 'resilient-sse';\ndocument.title = new EventStreamParser().lastEventId;\n");
  assert.doesNotMatch(await build(project), /idempotency-key/);
});

test('the source runs as it is: one file, without a build step', async () => {
  const source = await readFile(join(web, 'resilient-sse.js'), 'utf8');
  assert.doesNotMatch(source, /^import |\bimport\(['"]|\brequire\(/m);
});
