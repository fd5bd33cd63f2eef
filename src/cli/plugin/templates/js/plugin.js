// Which tenant an API key belongs to.
//
// One file: if you use packages, bundle them and name the bundle as "main" in package.json.

let keys = new Map();

// Called once, before any request, with the policy's `config` as JSON. What it throws refuses the
// policy, and is shown to whoever wrote it.
export function configure(config) {
  const { keys: written, ...unknown } = JSON.parse(config);
  const [misspelt] = Object.keys(unknown);
  if (misspelt !== undefined) throw `config: unknown field \`${misspelt}\`, expected \`keys\``;
  if (typeof written !== 'object' || written === null) throw 'config field `keys` must be a map';
  // A map, because an object answers for keys such as `constructor` too.
  keys = new Map(Object.entries(written));
}

// Called for each request. `request` has method(), scheme(), authority(), path(), query(),
// header(name), headers(), peer() and claims(). What it throws is a failure of the plugin.
export function resolve(request) {
  const key = request.header('x-api-key');
  if (key === undefined) return { tag: 'next' };
  const tenant = keys.get(key);
  if (tenant === undefined) {
    return {
      tag: 'deny',
      val: { status: 401, code: 'unknown-key', message: 'this API key is not known' },
    };
  }
  return { tag: 'place', val: { tenant, headers: [], reason: 'api key' } };
}
