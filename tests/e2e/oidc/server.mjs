// A real authorization server (oidc-provider) for case_oauth.py: client-credentials flow, access
// tokens as JWTs for the audience "holdfast", roles in realm_access.roles, keys that rotate.
//
// usage: node server.mjs CONFIG    CONFIG: {"port", "clients": [{"id", "secret", "roles", "alg", "ttl_s"}]}
//
// POST /test/rotate         new keys sign; the old ones stay published
// POST /test/rotate?drop=1  new keys; the old ones are no longer published
import { createServer } from 'node:http';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import Provider from 'oidc-provider';

const config = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const issuer = `http://127.0.0.1:${config.port}`;
const byId = new Map(config.clients.map((c) => [c.id, c]));
let keys = [];
let handle;

function newKeys() {
  const make = (type, options, alg) => ({
    ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }),
    kid: `${alg}-${randomUUID()}`,
    use: 'sig',
    alg,
  });
  return [
    make('rsa', { modulusLength: 2048 }, 'RS256'),
    make('ec', { namedCurve: 'P-256' }, 'ES256'),
    make('ed25519', {}, 'EdDSA'),
  ];
}

function start() {
  const provider = new Provider(issuer, {
    jwks: { keys },
    clients: config.clients.map((c) => ({
      client_id: c.id,
      client_secret: c.secret,
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
      token_endpoint_auth_method: 'client_secret_basic',
    })),
    scopes: ['locks', 'other'],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => 'urn:holdfast',
        getResourceServerInfo: (ctx, resource, client) => ({
          scope: 'locks other',
          audience: resource === 'urn:holdfast' ? 'holdfast' : resource,
          accessTokenTTL: byId.get(client.clientId).ttl_s,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: byId.get(client.clientId).alg } },
        }),
      },
    },
    extraTokenClaims: (ctx, token) => ({ realm_access: { roles: byId.get(token.clientId).roles } }),
  });
  handle = provider.callback();
}

keys = newKeys();
start();
createServer((request, response) => {
  if (request.method === 'POST' && request.url.startsWith('/test/rotate')) {
    keys = [...newKeys(), ...(request.url.endsWith('drop=1') ? [] : keys)];
    start();
    response.end('rotated\n');
    return;
  }
  handle(request, response);
}).listen(config.port, '127.0.0.1', () => console.log(`serving ${issuer}`));
process.on('SIGTERM', () => process.exit(0));
