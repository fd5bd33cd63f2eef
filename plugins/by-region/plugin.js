// Tenants whose data must stay in a region: their requests go to the region's own upstream.
//
//   config:
//     upstreams: { eu: app-eu, us: app-us }   # region to a name under the policy's `upstreams`
//     tenants: { acme: eu, globex: us }       # tenant to region
//
// The tenant is the one that `X-Tenant-ID` names. One that is not listed is left to the next
// resolver, and so is a request that names two: it arrives as one text, `a, b`.

let homes = new Map();

export function configure(config) {
  const { upstreams, tenants, ...unknown } = JSON.parse(config);
  const [misspelt] = Object.keys(unknown);
  if (misspelt !== undefined) {
    throw `config: unknown field \`${misspelt}\`, expected \`upstreams\` and \`tenants\``;
  }
  const known = new Map(entries('upstreams', upstreams));
  homes = new Map(
    entries('tenants', tenants).map(([tenant, region]) => {
      const upstream = known.get(region);
      if (upstream === undefined) {
        throw `config field \`tenants.${tenant}\`: the region \`${region}\` has no upstream`;
      }
      return [tenant, { region, upstream }];
    }),
  );
}

export function resolve(request) {
  const tenant = request.header('x-tenant-id');
  const home = homes.get(tenant);
  if (home === undefined) return { tag: 'next' };
  const { region, upstream } = home;
  return {
    tag: 'place',
    val: { tenant, upstream, headers: [['x-region', region]], reason: `data stays in ${region}` },
  };
}

function entries(field, map) {
  if (typeof map !== 'object' || map === null || Array.isArray(map)) {
    throw `config field \`${field}\` must be a map`;
  }
  return Object.entries(map);
}
