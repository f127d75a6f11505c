// What mqtt.js does against the server: every QoS, retained, shared, session with queue, takeover. Ends with "all well", or with an exception.
const assert = require("node:assert");
const mqtt = require("mqtt");

const [port, version] = process.argv.slice(2).map(Number);
const patience = setTimeout(() => { console.error("nothing more came"); process.exit(1); }, 40000);

function phone(id, options = {}) {
  const properties = version === 5 && options.clean === false ? { sessionExpiryInterval: 600 } : undefined;
  const client = mqtt.connect(`mqtt://127.0.0.1:${port}`, { clientId: `js-${version}-${id}`, protocolVersion: version, reconnectPeriod: 0, properties, ...options });
  const waiting = [], messages = [];
  client.on("message", (topic, payload, packet) => {
    const message = { topic, text: payload.toString(), qos: packet.qos, retain: packet.retain };
    waiting.length ? waiting.shift()(message) : messages.push(message);
  });
  client.take = () => messages.length ? Promise.resolve(messages.shift()) : new Promise((done) => waiting.push(done));
  client.ready = new Promise((done, fail) => { client.once("connect", done); client.once("error", fail); });
  return client;
}

async function main() {
  const a = phone("a"), b = phone("b");
  await Promise.all([a.ready, b.ready]);
  await a.subscribeAsync({ [`js/${version}/+`]: { qos: 2 } });
  for (const qos of [0, 1, 2]) {
    for (let n = 0; n < 20; n++) await b.publishAsync(`js/${version}/${n}`, `${qos} ${n}`, { qos });
    for (let n = 0; n < 20; n++) assert.deepStrictEqual(await a.take(), { topic: `js/${version}/${n}`, text: `${qos} ${n}`, qos, retain: false });
  }
  await b.publishAsync(`js-kept/${version}`, "kept", { qos: 1, retain: true });
  await a.subscribeAsync(`js-kept/${version}`, { qos: 1 });
  assert.deepStrictEqual(await a.take(), { topic: `js-kept/${version}`, text: "kept", qos: 1, retain: true });
  await b.publishAsync(`js-kept/${version}`, "", { qos: 1, retain: true });
  await a.take();

  let sleeper = phone("sleeps", { clean: false });
  await sleeper.ready;
  await sleeper.subscribeAsync(`js-queue/${version}`, { qos: 1 });
  await sleeper.endAsync();
  await new Promise((done) => setTimeout(done, 100));
  for (let n = 0; n < 10; n++) await b.publishAsync(`js-queue/${version}`, String(n), { qos: 1 });
  sleeper = phone("sleeps", { clean: false });
  assert.strictEqual((await sleeper.ready).sessionPresent, true);
  for (let n = 0; n < 10; n++) assert.strictEqual((await sleeper.take()).text, String(n));

  const closed = new Promise((done) => sleeper.once("close", done));
  const twin = phone("sleeps", { clean: true });
  await Promise.all([twin.ready, closed]);

  for (const client of [a, b, twin]) await client.endAsync();
  clearTimeout(patience);
  console.log("all well");
}

main().catch((error) => { console.error(error); process.exit(1); });
