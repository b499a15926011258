// Devices that run the official Node SDKs, unmodified: the current ones, or with `legacy` as the
// argument the provisioning SDK of 2018.
//
// Every line of standard input is one command, a JSON object with an `id`. Commands run side by
// side; the answer to each is a line that begins with "= " and carries the `id`. The harness's
// `sdk::Device` says what commands there are.
'use strict';

const crypto = require('crypto');
const fs = require('fs');
const readline = require('readline');
const { promisify } = require('util');

const legacy = process.argv[2] === 'legacy';
const provisioning = require('azure-iot-provisioning-device');
const transports = {
  'https': () => new (require('azure-iot-provisioning-device-http').Http)(),
  'mqtt': () => new (require('azure-iot-provisioning-device-mqtt').Mqtt)(),
  'mqtt-ws': () => new (require('azure-iot-provisioning-device-mqtt').MqttWs)(),
  'amqp': () => new (require('azure-iot-provisioning-device-amqp').Amqp)(),
  'amqp-ws': () => new (require('azure-iot-provisioning-device-amqp').AmqpWs)(),
};
const milliseconds = 60000;
const sessions = new Map();

function certificate(command) {
  return {
    cert: fs.readFileSync(command.certificateFile, 'ascii'),
    key: fs.readFileSync(command.keyFile, 'ascii'),
  };
}

// The security client of a device, on a TPM that is reached as a simulator.
function tpm(command, id) {
  const { TpmSecurityClient } = require('azure-iot-security-tpm');
  const { Tpm } = require('tss.js');
  return new TpmSecurityClient(id, new Tpm(true, '127.0.0.1', command.tpmPort));
}

function clientOf(command, transport) {
  let security;
  if (command.tpmPort) {
    security = tpm(command, command.registrationId);
  } else if (command.key) {
    const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
    security = new SymmetricKeySecurityClient(command.registrationId, command.key);
  } else {
    const { X509Security } = require('azure-iot-security-x509');
    security = new X509Security(command.registrationId, certificate(command));
  }
  return provisioning.ProvisioningDeviceClient.create(
    command.host, command.idScope, transport, security);
}

// The facade of 2018 knows no symmetric keys, while its state machine and the transports do not
// care how a device proves itself: this is the facade of 2019 in few words.
async function registerWithLegacyKey(command, transport) {
  const resource = `${command.idScope}/registrations/${command.registrationId}`;
  const end = Math.floor(Date.now() / 1000) + 3600;
  const signature = crypto.createHmac('sha256', Buffer.from(command.key, 'base64'))
    .update(`${resource}\n${end}`).digest('base64');
  transport.setSharedAccessSignature(`SharedAccessSignature sr=${resource}` +
    `&sig=${encodeURIComponent(signature)}&se=${end}&skn=registration`);
  const machine = new provisioning.PollingStateMachine(transport);
  const request = {
    registrationId: command.registrationId,
    provisioningHost: command.host,
    idScope: command.idScope,
  };
  return new Promise((resolve, reject) => {
    machine.register(request, (error, result) => {
      machine.disconnect(() => error ? reject(error) : resolve(result.registrationState));
    });
  });
}

async function register(command) {
  const transport = transports[command.transport]();
  // A connection that breaks between two polls is an event, and the end of a process that does not
  // listen; the next poll connects again.
  if (transport.on) transport.on('error', () => {});
  let state;
  if (legacy && command.key) {
    state = await registerWithLegacyKey(command, transport);
  } else {
    const client = clientOf(command, transport);
    if (command.payload) client.setProvisioningPayload(command.payload);
    state = await promisify(client.register.bind(client))();
    // Of a device with a TPM the SDK hands on the whole answer.
    if (command.tpmPort) state = state.registrationState;
  }
  return {
    status: state.status,
    hub: state.assignedHub,
    device: state.deviceId,
    substatus: state.substatus,
  };
}

async function connect(command) {
  const { Client } = require('azure-iot-device');
  const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');
  const protocol = command.transport.endsWith('-ws') ? MqttWs : Mqtt;
  let client;
  if (command.tpmPort) {
    const { TpmAuthenticationProvider } = require('azure-iot-security-tpm');
    client = Client.fromAuthenticationProvider(TpmAuthenticationProvider.fromTpmSecurityClient(
      command.device, command.hub, tpm(command, command.device)), protocol);
  } else {
    const names = `HostName=${command.hub};DeviceId=${command.device}`;
    const proof = command.key ? `;SharedAccessKey=${command.key}` : ';x509=true';
    client = Client.fromConnectionString(names + proof, protocol);
  }
  // Without this, the SDK asks a hub that refuses it again and again, for four minutes.
  client.setRetryPolicy(new (require('azure-iot-common').NoRetry)());
  if (command.certificateFile) client.setOptions(certificate(command));
  const ended = new Promise((resolve) => client.on('disconnect', resolve));
  client.on('error', () => {});
  await promisify(client.open.bind(client))();
  const twin = await promisify(client.getTwin.bind(client))();
  twin.on('properties.desired', () => {});
  twin.on('error', () => {});
  sessions.set(command.session, { client, ended, twin });
  return { connected: true };
}

async function twin(command) {
  const { desired, reported } = sessions.get(command.session).twin.properties;
  return { desired, reported };
}

async function report(command) {
  const { reported } = sessions.get(command.session).twin.properties;
  await promisify(reported.update.bind(reported))(command.patch);
  return {};
}

// From now on answers calls of a method with what the caller has sent.
async function answer(command) {
  const { client } = sessions.get(command.session);
  client.onDeviceMethod(command.method, (request, response) => {
    response.send(200, { echo: request.payload }, () => {});
  });
  return {};
}

// Waits until the hub has ended the connection.
async function lost(command) {
  const { client, ended } = sessions.get(command.session);
  sessions.delete(command.session);
  let timer;
  const late = new Promise((resolve) => {
    timer = setTimeout(resolve, milliseconds, 'late');
  });
  const first = await Promise.race([ended, late]);
  clearTimeout(timer);
  client.close(() => {});
  return { lost: first !== 'late' };
}

async function close(command) {
  const { client } = sessions.get(command.session);
  sessions.delete(command.session);
  await promisify(client.close.bind(client))();
  return {};
}

// Over AMQP, the SDK hands on errors of the link as they came, which are no Errors.
function described(error) {
  if (error.condition) return `${error.condition}: ${error.description}`;
  const body = error.result ? ` ${JSON.stringify(error.result)}` : '';
  return `${error.name}: ${error.message}${body}`;
}

const commands = { register, connect, twin, report, answer, lost, close };

async function obey(command) {
  let answer;
  try {
    answer = { result: await commands[command.do](command) };
  } catch (error) { // whatever the SDK throws is the answer
    answer = { error: described(error) };
  }
  console.log('=', JSON.stringify({ id: command.id, ...answer }));
}

// Some breaks of a connection come as events of objects that an application never sees.
process.on('uncaughtException', (error) => console.error('uncaught', error));
readline.createInterface({ input: process.stdin })
  .on('line', (line) => obey(JSON.parse(line)))
  .on('close', () => process.exit(0));
