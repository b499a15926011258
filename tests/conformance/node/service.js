// A back end that runs the official azure-iothub SDK, unmodified.
//
// Arguments: the hub's connection string and the id of a device to work with. For each operation
// that did what it should, one line: "= " and its name.
'use strict';

const { Registry } = require('azure-iothub');

const keys = {
  primaryKey: 'cHJpbWFyeS1rZXktb2YtdGhlLWRldmljZQ==',
  secondaryKey: 'c2Vjb25kYXJ5LWtleS1vZi1pdC1hbGw=',
};

function done(operation, isRight) {
  if (!isRight) throw new Error(`${operation} did something else`);
  console.log('=', operation);
}

async function main([connectionString, deviceId]) {
  const registry = Registry.fromConnectionString(connectionString);

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

  const patch = { tags: { line: 3 }, properties: { desired: { interval: 5 } } };
  twin = (await registry.updateTwin(deviceId, patch, twin.etag)).responseBody;
  done('twin-update', twin.tags.line === 3 && twin.properties.desired.interval === 5);

  const query = registry.createQuery(`SELECT * FROM devices WHERE deviceId = '${deviceId}'`);
  const answer = (await query.nextAsTwin()).result;
  done('query', answer.length === 1 && answer[0].tags.line === 3 && !query.hasMoreResults);

  const statistics = (await registry.getRegistryStatistics()).responseBody;
  done('statistics', statistics.totalDeviceCount >= 1 && statistics.disabledDeviceCount >= 1);

  const many = [1, 2, 3].map((number) => ({ deviceId: `${deviceId}-${number}` }));
  const added = (await registry.addDevices(many)).responseBody;
  done('bulk-create', added.isSuccessful && added.errors.length === 0);

  const removed = (await registry.removeDevices(many, true)).responseBody;
  done('bulk-delete', removed.isSuccessful);

  await registry.delete(deviceId);
  const rest = (await registry.list()).responseBody;
  done('delete', rest.every((one) => !one.deviceId.startsWith(deviceId)));
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
