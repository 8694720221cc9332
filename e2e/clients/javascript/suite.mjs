// What programs do with the JavaScript client, on a running cluster that KUBECONFIG names.
//
// Prints a line per part and ends with 0 if every part did what it does on Kubernetes.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { PassThrough } from 'node:stream';

// The client is installed elsewhere: SUITE_MODULES names where.
const require = createRequire(`${process.env.SUITE_MODULES}/`);
const k8s = await import(require.resolve('@kubernetes/client-node'));

const namespace = 'javascript';
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const PATIENCE = 60_000;

async function refused(code, reason, call) {
  await assert.rejects(call, (error) => {
    assert.equal(error.code, code, `${error}`);
    const status = typeof error.body === 'string' ? JSON.parse(error.body) : error.body;
    assert.equal(status.reason, reason);
    return true;
  });
}

/** What a promise gives, if it does so in time. */
async function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${PATIENCE / 1000} s`)), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const map = (name, data) => ({ metadata: { name, labels: { suite: 'javascript' } }, data });
const list = (more) => core.listNamespacedConfigMap({ namespace, labelSelector: 'suite=javascript', ...more });

async function createReadUpdateDelete() {
  const made = await core.createNamespacedConfigMap({ namespace, body: map('a', { key: '1' }) });
  assert.ok(made.metadata.uid && made.metadata.creationTimestamp instanceof Date);
  await refused(409, 'AlreadyExists', () => core.createNamespacedConfigMap({ namespace, body: map('a') }));
  await refused(422, 'Invalid', () => core.createNamespacedConfigMap({ namespace, body: map('A_b') }));
  const read = await core.readNamespacedConfigMap({ namespace, name: 'a' });
  read.data.key = '2';
  const replaced = await core.replaceNamespacedConfigMap({ namespace, name: 'a', body: read });
  assert.deepEqual(replaced.data, { key: '2' });
  // The object that was read is old now.
  read.data.key = '3';
  await refused(409, 'Conflict', () => core.replaceNamespacedConfigMap({ namespace, name: 'a', body: read }));
  for (const name of 'bcdef') await core.createNamespacedConfigMap({ namespace, body: map(name) });
  const names = [];
  let _continue;
  do {
    const page = await list({ limit: 2, _continue });
    names.push(...page.items.map((item) => item.metadata.name));
    ({ _continue } = page.metadata);
  } while (_continue);
  assert.deepEqual(names, [...'abcdef']);
  await core.deleteNamespacedConfigMap({ namespace, name: 'a' });
  await refused(404, 'NotFound', () => core.readNamespacedConfigMap({ namespace, name: 'a' }));
  await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 'suite=javascript' });
  assert.deepEqual((await list()).items, []);
}

async function patches() {
  await core.createNamespacedConfigMap({ namespace, body: map('patched', { a: '1', b: '2' }) });
  const patch = async (strategy, body, more = {}) => {
    const options = k8s.setHeaderOptions('Content-Type', strategy);
    const patched = await core.patchNamespacedConfigMap({ namespace, name: 'patched', body, ...more }, options);
    return patched.data;
  };
  const { JsonPatch, MergePatch, StrategicMergePatch, ServerSideApply } = k8s.PatchStrategy;
  assert.deepEqual(await patch(StrategicMergePatch, { data: { a: null, c: '3' } }), { b: '2', c: '3' });
  assert.deepEqual(await patch(MergePatch, { data: { c: null } }), { b: '2' });
  assert.deepEqual(await patch(JsonPatch, [{ op: 'replace', path: '/data/b', value: '9' }]), { b: '9' });
  const applied = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'patched' }, data: { d: '4' } };
  assert.deepEqual(await patch(ServerSideApply, applied, { fieldManager: 'suite' }), { b: '9', d: '4' });
  // Another manager is told of the conflict.
  applied.data.d = '5';
  await refused(409, 'Conflict', () => patch(ServerSideApply, applied, { fieldManager: 'other' }));
}

/** The events of a watch until `enough` says so. */
async function events(query, enough) {
  const seen = [];
  let revision;
  const watch = new k8s.Watch(config);
  await within('a watch', new Promise((resolve, reject) => {
    let controller;
    const event = (type, object) => {
      seen.push(`${type} ${object.metadata.name}`);
      revision = object.metadata.resourceVersion;
      if (!enough(seen)) return;
      resolve();
      controller?.abort();
    };
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const started = watch.watch(path, query, event, (error) => (enough(seen) ? resolve() : reject(error)));
    started.then((value) => {
      controller = value;
      if (enough(seen)) controller.abort();
    }, reject);
  }));
  return { seen, revision };
}

async function watches() {
  const { metadata } = await list();
  for (const name of 'xyz') await core.createNamespacedConfigMap({ namespace, body: map(name) });
  const first = await events({ resourceVersion: metadata.resourceVersion }, (seen) => seen.length >= 3);
  assert.deepEqual(first.seen.slice(0, 3), ['ADDED x', 'ADDED y', 'ADDED z']);
  // Another watch goes on where this one stopped: nothing is missing, and nothing comes twice.
  await core.deleteNamespacedConfigMap({ namespace, name: 'x' });
  const second = await events({ resourceVersion: first.revision }, (seen) => seen.length >= 1);
  assert.deepEqual(second.seen, ['DELETED x']);
}

async function informers() {
  const path = `/api/v1/namespaces/${namespace}/configmaps`;
  const informer = k8s.makeInformer(config, path, () => core.listNamespacedConfigMap({ namespace }));
  const heard = (verb, name) =>
    new Promise((resolve) => informer.on(verb, (object) => object.metadata.name === name && resolve(object)));
  const known = heard('add', 'y');
  await informer.start();
  await within('what is there', known);
  const added = heard('add', 'new');
  const changed = heard('update', 'new');
  const deleted = heard('delete', 'new');
  await core.createNamespacedConfigMap({ namespace, body: map('new', { a: '1' }) });
  await within('add', added);
  await core.replaceNamespacedConfigMap({ namespace, name: 'new', body: map('new', { a: '2' }) });
  assert.deepEqual((await within('update', changed)).data, { a: '2' });
  await core.deleteNamespacedConfigMap({ namespace, name: 'new' });
  await within('delete', deleted);
  await informer.stop();
}

/** Resolves when an object of a kind is as wished. */
async function until(path, name, wished) {
  const informer = k8s.makeInformer(config, path, () =>
    path.includes('/pods') ? core.listNamespacedPod({ namespace }) : apps.listNamespacedDeployment({ namespace }));
  const seen = new Promise((resolve) => {
    const look = (object) => object.metadata.name === name && wished(object) && resolve(object);
    informer.on('add', look);
    informer.on('update', look);
  });
  await informer.start();
  const object = await within(name, seen);
  await informer.stop();
  return object;
}

const collected = (stream) => {
  const pieces = [];
  stream.on('data', (piece) => pieces.push(piece));
  return () => Buffer.concat(pieces).toString();
};

async function pods() {
  const container = { name: 'main', image: 'skiff.local/hello:1' };
  const spec = { containers: [container], terminationGracePeriodSeconds: 1 };
  await core.createNamespacedPod({ namespace, body: { metadata: { name: 'web' }, spec } });
  const ready = (pod) => pod.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True');
  await until(`/api/v1/namespaces/${namespace}/pods`, 'web', ready);

  const run = (command) => within(`${command}`, new Promise((resolve, reject) => {
    const out = new PassThrough();
    const err = new PassThrough();
    const [stdout, stderr] = [collected(out), collected(err)];
    const ended = (status) => resolve({ status, out: stdout(), err: stderr() });
    new k8s.Exec(config).exec(namespace, 'web', 'main', command, out, err, null, false, ended).catch(reject);
  }));
  const version = await run(['/skiff', 'version']);
  assert.equal(version.status.status, 'Success');
  assert.match(version.out, /^skiff /);
  const wrong = await run(['/skiff', 'frobnicate']);
  assert.equal(wrong.status.reason, 'NonZeroExitCode');
  assert.deepEqual(wrong.status.details.causes, [{ reason: 'ExitCode', message: '2' }]);

  const answer = new PassThrough();
  const question = new PassThrough();
  const text = collected(answer);
  const forwarded = await new k8s.PortForward(config).portForward(namespace, 'web', [8080], answer, null, question);
  const answered = new Promise((resolve) => answer.on('data', () => text().includes('web') && resolve()));
  question.write('GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n');
  await within('a forwarded port', answered);
  assert.match(text(), /^HTTP\/1.1 200/);
  forwarded.close();

  const lines = new PassThrough();
  const log = collected(lines);
  const ended = new Promise((resolve) => lines.on('end', resolve));
  const some = new Promise((resolve) => lines.once('data', resolve));
  await new k8s.Log(config).log(namespace, 'web', 'main', lines, { follow: true });
  await within('a line of the log', some);
  // The log ends with its pod.
  await core.deleteNamespacedPod({ namespace, name: 'web' });
  await within('the end of the log', ended);
  assert.notEqual(log(), '');
}

async function deployments() {
  const labels = { app: 'web' };
  const template = {
    metadata: { labels },
    spec: { containers: [{ name: 'main', image: 'skiff.local/hello:1' }], terminationGracePeriodSeconds: 1 },
  };
  const objects = k8s.KubernetesObjectApi.makeApiClient(config);
  await objects.create({
    apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'web', namespace },
    spec: { replicas: 2, selector: { matchLabels: labels }, template },
  });
  const path = `/apis/apps/v1/namespaces/${namespace}/deployments`;
  await until(path, 'web', (deployment) => deployment.status?.availableReplicas === 2);
  const scale = await apps.readNamespacedDeploymentScale({ namespace, name: 'web' });
  scale.spec.replicas = 0;
  const scaled = await apps.replaceNamespacedDeploymentScale({ namespace, name: 'web', body: scale });
  assert.equal(scaled.spec.replicas ?? 0, 0);
  await objects.delete({ apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'web', namespace } });
}

/** The client has no election of its own; this is what its users write: a lease, held by updates that may conflict. */
async function leaders() {
  const leases = config.makeApiClient(k8s.CoordinationV1Api);
  const name = 'leader';
  const spec = (holderIdentity) => ({ holderIdentity, leaseDurationSeconds: 15, renewTime: new k8s.V1MicroTime() });
  await leases.createNamespacedLease({ namespace, body: { metadata: { name }, spec: spec('one') } });
  const seen = await leases.readNamespacedLease({ namespace, name });
  assert.equal(seen.spec.holderIdentity, 'one');
  // Both candidates saw the same lease: one gets it, the other is told.
  const take = (identity) => leases.replaceNamespacedLease({ namespace, name, body: { ...seen, spec: spec(identity) } });
  const outcome = await Promise.allSettled(['two', 'three'].map(take));
  assert.deepEqual(outcome.map((one) => one.status).sort(), ['fulfilled', 'rejected']);
  assert.equal(outcome.find((one) => one.status === 'rejected').reason.code, 409);
}

await core.createNamespace({ body: { metadata: { name: namespace } } });
const parts = [createReadUpdateDelete, patches, watches, informers, pods, deployments, leaders];
for (const part of parts) {
  const started = performance.now();
  await part();
  console.log(`javascript: ${part.name}, ${((performance.now() - started) / 1000).toFixed(1)} s`);
}
await core.deleteNamespace({ name: namespace });
process.exit(0);
