"""Devices that run the official azure-iot-device SDK, unmodified.

Every line of standard input is one command, a JSON object with an `id`. Commands run side by side;
the answer to each is a line that begins with "= " and carries the `id`. The harness's
`sdk::Device` says what commands there are.
"""

import json
import sys
import threading

from azure.iot.device import (
    IoTHubDeviceClient,
    MethodResponse,
    ProvisioningDeviceClient,
    X509,
)

SECONDS = 60
sessions = {}
write_lock = threading.Lock()


def certificate(command):
    return X509(cert_file=command["certificateFile"], key_file=command["keyFile"])


def register(command):
    options = {
        "provisioning_host": command["host"],
        "registration_id": command["registrationId"],
        "id_scope": command["idScope"],
        "websockets": command["transport"] == "mqtt-ws",
        "server_verification_cert": AUTHORITY,
    }
    if "key" in command:
        options["symmetric_key"] = command["key"]
        client = ProvisioningDeviceClient.create_from_symmetric_key(**options)
    else:
        options["x509"] = certificate(command)
        client = ProvisioningDeviceClient.create_from_x509_certificate(**options)
    if "payload" in command:
        client.provisioning_payload = command["payload"]
    result = client.register()
    state = result.registration_state
    return {
        "status": result.status,
        "hub": state.assigned_hub,
        "device": state.device_id,
        "substatus": state.sub_status,
    }


def connect(command):
    options = {
        "hostname": command["hub"],
        "device_id": command["device"],
        "websockets": command["transport"] == "mqtt-ws",
        "server_verification_cert": AUTHORITY,
    }
    if "key" in command:
        options["symmetric_key"] = command["key"]
        client = IoTHubDeviceClient.create_from_symmetric_key(**options)
    else:
        options["x509"] = certificate(command)
        client = IoTHubDeviceClient.create_from_x509_certificate(**options)
    lost = threading.Event()
    client.on_connection_state_change = lambda: None if client.connected else lost.set()
    try:
        client.connect()
    except Exception:
        leave(client)
        raise
    sessions[command["session"]] = (client, lost)
    return {"connected": client.connected}


def leave(client):
    """Ends a client that was refused or cut off, without waiting for it: its network thread may have
    died of writing to a connection that the hub has closed (paho-mqtt takes an SSLEOFError for
    nothing that it knows), and then the SDK waits for that thread for ever."""
    threading.Thread(target=client.shutdown, daemon=True).start()


def twin(command):
    client, _ = sessions[command["session"]]
    return client.get_twin()


def report(command):
    client, _ = sessions[command["session"]]
    client.patch_twin_reported_properties(command["patch"])
    return {}


def answer(command):
    """From now on answers calls of a method with what the caller has sent."""
    client, _ = sessions[command["session"]]

    def called(request):
        is_known = request.name == command["method"]
        code, payload = (200, {"echo": request.payload}) if is_known else (404, None)
        response = MethodResponse.create_from_method_request(request, code, payload)
        client.send_method_response(response)

    client.on_method_request_received = called
    return {}


def lost(command):
    """Waits until the hub has ended the connection."""
    client, ended = sessions.pop(command["session"])
    is_lost = ended.wait(SECONDS)
    leave(client)
    return {"lost": is_lost}


def close(command):
    client, _ = sessions.pop(command["session"])
    client.shutdown()
    return {}


COMMANDS = {
    "register": register,
    "connect": connect,
    "twin": twin,
    "report": report,
    "answer": answer,
    "lost": lost,
    "close": close,
}


def obey(command):
    try:
        answer = {"result": COMMANDS[command["do"]](command)}
    except Exception as error:  # whatever the SDK raises is the answer
        causes = []
        while error is not None and len(causes) < 5:
            causes.append(f"{type(error).__name__}: {error}")
            error = error.__cause__ or error.__context__
        answer = {"error": " <- ".join(causes)}
    with write_lock:
        print("=", json.dumps({"id": command["id"], **answer}), flush=True)


with open(sys.argv[1], encoding="ascii") as file:
    AUTHORITY = file.read()
for line in sys.stdin:
    threading.Thread(target=obey, args=[json.loads(line)], daemon=True).start()
