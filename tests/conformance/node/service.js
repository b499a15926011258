// A back end that runs the official azure-iothub SDK, unmodified.
//
// Arguments: the hub's connection string, the id of a device to work with, and the id of a connected
// device that answers the method "identify". For each operation that did what it should, one line:
// "= " and its name.
'use strict';

const { Client, Registry } = require('azure-iothub');

const keys = {
  primaryKey: 'cHJpbWFyeS1rZXktb2YtdGhlLWRldmljZQ==',
  secondaryKey: 'c2Vjb25kYXJ5LWtleS1vZi1pdC1hbGw=',
};

function done(operation, isRight) {
  if (!isRight) throw new Error(`${operation} did something else`);
  console.log('=', operation);
}

async function devices(registry, deviceId) {
  const created = (await registry.create({
    deviceId, status: 'enabled', authentication: { type: 'sas', symmetricKey: keys },
  })).responseBody;
  done('create', created.deviceId === deviceId && created.status === 'enabled');

  const found = (await registry.get(deviceId)).responseBody;
  done('get', found.authentication.symmetricKey.primaryKey === keys.primaryKey);

  const all = (await registry.list()).responseBody;
  done('list', all.some((one) => one.deviceId === deviceId));

  const updated = (await registry.update(
    { ...found, status: 'disabled', statusReason: 'in repair' })).responseBody;
  done('update', updated.status === 'disabled' && updated.statusReason === 'in repair');

  let twin = (await registry.getTwin(deviceId)).responseBody;
  done('twin-get', twin.deviceId === deviceId && twin.status === 'disabled');
  // Modules of a device that is disabled cannot be worked with.
  await registry.update({ ...updated, status: 'enabled' });

  const patch = { tags: { line: 3 }, properties: { desired: { interval: 5 } } };
  twin = (await registry.updateTwin(deviceId, patch, twin.etag)).responseBody;
  done('twin-update', twin.tags.line === 3 && twin.properties.desired.interval === 5);

  const query = registry.createQuery(`SELECT * FROM devices WHERE deviceId = '${deviceId}'`);
  const answer = (await query.nextAsTwin()).result;
  done('query', answer.length === 1 && answer[0].tags.line === 3 && !query.hasMoreResults);
}

async function modules(registry, deviceId) {
  const moduleId = 'pump';
  const created = (await registry.addModule({
    deviceId, moduleId, authentication: { type: 'sas', symmetricKey: keys },
  })).responseBody;
  done('module-create', created.deviceId === deviceId && created.moduleId === moduleId);

  const found = (await registry.getModule(deviceId, moduleId)).responseBody;
  done('module-get', found.authentication.symmetricKey.primaryKey === keys.primaryKey);

  const all = (await registry.getModulesOnDevice(deviceId)).responseBody;
  done('module-list', all.length === 1 && all[0].moduleId === moduleId);

  const { primaryKey, secondaryKey } = keys;
  const swapped = { primaryKey: secondaryKey, secondaryKey: primaryKey };
  const updated = (await registry.updateModule(
    { ...found, authentication: { type: 'sas', symmetricKey: swapped } })).responseBody;
  done('module-update', updated.authentication.symmetricKey.primaryKey === secondaryKey);

  let twin = (await registry.getModuleTwin(deviceId, moduleId)).responseBody;
  done('module-twin-get', twin.moduleId === moduleId);

  const patch = { tags: { line: 3 }, properties: { desired: { interval: 5 } } };
  twin = (await registry.updateModuleTwin(deviceId, moduleId, patch, twin.etag)).responseBody;
  done('module-twin-update', twin.tags.line === 3 && twin.properties.desired.interval === 5);

  await registry.removeModule(deviceId, moduleId);
  const rest = (await registry.getModulesOnDevice(deviceId)).responseBody;
  done('module-delete', rest.length === 0);
}

async function methods(client, answering) {
  const call = { methodName: 'identify', payload: { loud: true }, responseTimeoutInSeconds: 20 };
  const { result } = await client.invokeDeviceMethod(answering, call);
  done('method', result.status === 200 && result.payload.echo.loud === true);
}

async function bulk(registry, deviceId) {
  const statistics = (await registry.getRegistryStatistics()).responseBody;
  const { totalDeviceCount, enabledDeviceCount } = statistics;
  done('statistics', totalDeviceCount >= enabledDeviceCount && enabledDeviceCount >= 1);

  const many = [1, 2, 3].map((number) => ({ deviceId: `${deviceId}-${number}` }));
  const added = (await registry.addDevices(many)).responseBody;
  done('bulk-create', added.isSuccessful && added.errors.length === 0);

  const removed = (await registry.removeDevices(many, true)).responseBody;
  done('bulk-delete', removed.isSuccessful);
}

async function main([connectionString, deviceId, answering]) {
  const registry = Registry.fromConnectionString(connectionString);
  await devices(registry, deviceId);
  await modules(registry, deviceId);
  await methods(Client.fromConnectionString(connectionString), answering);
  await bulk(registry, deviceId);

  await registry.delete(deviceId);
  const rest = (await registry.list()).responseBody;
  done('delete', rest.every((one) => !one.deviceId.startsWith(deviceId)));
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
