// Run by `innkeeper plugin build` in the project's directory: module, contract and output are its
// arguments.
import { writeFile } from 'node:fs/promises';
import { componentize } from '@bytecodealliance/componentize-js';

const [sourcePath, witPath, output] = process.argv.slice(1);
const { component } = await componentize({
  sourcePath,
  witPath,
  worldName: 'policy',
  // What a plugin could not use anyway; each would be an import to grant.
  disableFeatures: ['stdio', 'random', 'clocks', 'http', 'fetch-event'],
});
await writeFile(output, component);
