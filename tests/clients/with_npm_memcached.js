// npm's memcached against one server: `node with_npm_memcached.js HOST PORT`.
'use strict';

const assert = require('node:assert');
const { promisify } = require('node:util');
const Memcached = require('memcached');

const LARGE = Buffer.alloc(1_000_000, 'v');
const BINARY = Buffer.from([...Array(256).keys()]);

function connect(host, port) {
  const client = new Memcached(`${host}:${port}`, {
    maxValue: 4_000_000, timeout: 20_000, retries: 0, failures: 1,
  });
  const call = {};
  for (const name of ['set', 'get', 'gets', 'getMulti', 'add', 'replace', 'append', 'prepend',
    'cas', 'incr', 'decr', 'touch', 'del', 'version', 'flush', 'stats', 'settings', 'items']) {
    call[name] = promisify(client[name]).bind(client);
  }
  call.end = () => client.end();
  return call;
}

async function untilGone(client, key) {
  const deadline = Date.now() + 20_000;
  while (await client.get(key) !== undefined) {
    assert(Date.now() < deadline, `${key} is still there`);
    await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
}

async function storage(client) {
  assert.strictEqual(await client.set('k', '1', 0), true);
  assert.strictEqual(await client.get('k'), '1');
  await assert.rejects(client.add('k', '2', 0));
  assert.strictEqual(await client.replace('k', '3', 0), true);
  assert.strictEqual(await client.append('k', '4'), true);
  assert.strictEqual(await client.prepend('k', '2'), true);
  assert.strictEqual(await client.get('k'), '234');
  await client.set('l', 'other', 0);
  assert.deepStrictEqual(await client.getMulti(['k', 'l', 'none']), { k: '234', l: 'other' });
  assert.strictEqual(await client.del('k'), true);
  assert.strictEqual(await client.del('k'), false);
}

async function casAndNumbers(client) {
  await client.set('c', 'a', 0);
  const { cas, c } = await client.gets('c');
  assert.strictEqual(c, 'a');
  assert.strictEqual(await client.cas('c', 'b', cas, 0), true);
  assert.strictEqual(await client.cas('c', 'd', cas, 0), false);
  assert.strictEqual(await client.get('c'), 'b');
  await client.set('n', '10', 0);
  assert.strictEqual(await client.incr('n', 5), 15);
  assert.strictEqual(await client.decr('n', 20), 0);
  assert.strictEqual(await client.incr('none', 1), false);
}

async function timesAndValues(client) {
  await client.set('t', '1', 1);
  await untilGone(client, 't');
  await client.set('t', '1', 0);
  await client.touch('t', 1);
  await untilGone(client, 't');
  await client.set('large', LARGE, 0);
  assert(LARGE.equals(await client.get('large')));
  await client.set('binary', BINARY, 0);
  assert(BINARY.equals(await client.get('binary')));
  await client.set('json', { a: [1, null] }, 0);
  assert.deepStrictEqual(await client.get('json'), { a: [1, null] });
}

async function server(client) {
  const [version] = await client.version();
  // It takes the digits at the end of the line.
  assert.match(version.version, /^\d+\.\d+\.\d+$/);
  const [stats] = await client.stats();
  assert('curr_items' in stats && 'cmd_get' in stats);
  const [settings] = await client.settings();
  assert('item_size_max' in settings);
  await client.set('f', '1', 0);
  await client.flush();
  assert.strictEqual(await client.get('f'), undefined);
}

async function main([host, port]) {
  const client = connect(host, port);
  for (const part of [storage, casAndNumbers, timesAndValues, server]) {
    await part(client);
  }
  client.end();
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
