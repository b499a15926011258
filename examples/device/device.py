"""A device: it asks where it lives, lives there, and asks again now and then.

The SDK is azure-iot-device as Azure publishes it. What the device is told comes from its
environment, what it does is printed, one JSON object a line.
"""

import json
import os
import queue
import sys
import time

from azure.iot.device import IoTHubDeviceClient, ProvisioningDeviceClient


class Device:
    def __init__(self, environment):
        self.registration_id = environment["REGISTRATION_ID"]
        self.id_scope = environment["ID_SCOPE"]
        self.key = environment["SYMMETRIC_KEY"]
        self.host = environment["PROVISIONING_HOST"]
        self.check_in = float(environment.get("CHECK_IN_SECONDS", "3600"))
        with open(environment["CA_FILE"], encoding="ascii") as file:
            self.ca = file.read()
        self.hub = None
        self.client = None
        self.lost = queue.Queue()

    def say(self, what, **more):
        print(json.dumps({"device": self.registration_id, "event": what, **more}), flush=True)

    def register(self):
        client = ProvisioningDeviceClient.create_from_symmetric_key(
            provisioning_host=self.host,
            registration_id=self.registration_id,
            id_scope=self.id_scope,
            symmetric_key=self.key,
            server_verification_cert=self.ca,
        )
        result = client.register()
        if result.status != "assigned":
            raise RuntimeError(f"the registration is {result.status}")
        return result.registration_state

    def live_at(self, state):
        """Connects to a hub, and reports what a back end wants to see survive a move."""
        if self.client is not None:
            self.client.shutdown()
            self.client = None
        client = IoTHubDeviceClient.create_from_symmetric_key(
            symmetric_key=self.key,
            hostname=state.assigned_hub,
            device_id=state.device_id,
            server_verification_cert=self.ca,
        )
        # A queue for each client: the end of the one before is no news.
        lost = queue.Queue()
        client.on_connection_state_change = lambda: lost.put(not client.connected)
        self.client, self.lost = client, lost
        client.connect()
        reported = client.get_twin()["reported"]
        moves = reported.get("moves", -1) + 1
        client.patch_twin_reported_properties({"firmware": "4.2", "moves": moves})
        self.hub = state.assigned_hub
        self.say("connected", hub=self.hub, moves=moves)

    def wait(self):
        """Until the next check-in is due, or the hub has cut the connection."""
        end = time.monotonic() + self.check_in
        while (left := end - time.monotonic()) > 0:
            try:
                if self.lost.get(timeout=left):
                    # The SDK may connect again by itself, but what the hub knew may be gone.
                    self.hub = None
                    self.say("connection lost")
                    return
            except queue.Empty:
                return

    def live(self):
        while True:
            try:
                state = self.register()
                self.say("assigned", hub=state.assigned_hub, substatus=state.sub_status)
                if state.assigned_hub != self.hub:
                    self.live_at(state)
                self.wait()
            except Exception as error:  # a device in the field tries again, whatever it was
                self.hub = None
                self.say("failed", error=f"{type(error).__name__}: {error}")
                time.sleep(min(self.check_in, 5))


if __name__ == "__main__":
    try:
        Device(os.environ).live()
    except KeyError as missing:
        sys.exit(f"the environment variable {missing} is not set")
