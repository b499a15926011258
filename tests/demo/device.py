"""A device that runs the official azure-iot-device SDK, unmodified.

It does what it is told on standard input, one command in a line, and answers each with a line
that begins with "= ". Type `help` for the commands.
"""

import argparse
import json
import queue
import sys

from azure.iot.device import IoTHubDeviceClient, ProvisioningDeviceClient

SECONDS = 60


class Device:
    def __init__(self, options):
        self.options = options
        with open(options.ca_file, encoding="ascii") as file:
            self.ca = file.read()
        self.assigned = None
        self.client = None
        self.desired_changes = queue.Queue()
        self.connection_changes = queue.Queue()

    def register(self, payload):
        """register [JSON]: ask the provisioning service where to live"""
        client = ProvisioningDeviceClient.create_from_symmetric_key(
            provisioning_host=self.options.host,
            registration_id=self.options.registration_id,
            id_scope=self.options.id_scope,
            symmetric_key=self.options.key,
            server_verification_cert=self.ca,
        )
        if payload is not None:
            client.provisioning_payload = payload
        result = client.register()
        self.assigned = result.registration_state
        return {
            "operation": result.operation_id,
            "status": result.status,
            "hub": self.assigned.assigned_hub,
            "device": self.assigned.device_id,
            "substatus": self.assigned.sub_status,
        }

    def connect(self, _):
        """connect: connect to the hub that the device was told"""
        if self.client is not None:
            self.client.shutdown()
        self.client = IoTHubDeviceClient.create_from_symmetric_key(
            symmetric_key=self.options.key,
            hostname=self.assigned.assigned_hub,
            device_id=self.assigned.device_id,
            server_verification_cert=self.ca,
        )
        client, changes = self.client, queue.Queue()
        self.connection_changes = changes
        client.on_connection_state_change = lambda: changes.put(client.connected)
        client.on_twin_desired_properties_patch_received = self.desired_changes.put
        client.connect()
        return {"hub": self.assigned.assigned_hub, "connected": client.connected}

    def report(self, patch):
        """report JSON: merge into the reported properties"""
        self.client.patch_twin_reported_properties(patch)
        return {"reported": patch}

    def twin(self, _):
        """twin: read the twin"""
        return self.client.get_twin()

    def desired(self, _):
        """desired: wait for the next change of the desired properties"""
        return self.desired_changes.get(timeout=SECONDS)

    def lost(self, _):
        """lost: wait until the connection is lost"""
        while self.connection_changes.get(timeout=SECONDS):
            pass
        return {"connected": False}

    def obey(self, line):
        name, _, argument = line.strip().partition(" ")
        commands = {"register", "connect", "report", "twin", "desired", "lost"}
        if name not in commands:
            texts = [getattr(Device, command).__doc__ for command in sorted(commands)]
            return {"commands": texts}
        try:
            return getattr(self, name)(json.loads(argument) if argument else None)
        except queue.Empty:
            return {"error": f"nothing came within {SECONDS} seconds"}
        except Exception as error:  # whatever the SDK raises is the answer
            return {"error": f"{type(error).__name__}: {error}"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", required=True, help="provisioning host")
    parser.add_argument("--id-scope", required=True)
    parser.add_argument("--registration-id", required=True)
    parser.add_argument("--key", required=True, help="the device's own symmetric key, in base64")
    parser.add_argument("--ca-file", required=True, help="certificate authority to trust, in PEM")
    device = Device(parser.parse_args())
    for line in sys.stdin:
        print("=", json.dumps(device.obey(line)), flush=True)


if __name__ == "__main__":
    main()
