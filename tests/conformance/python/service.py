"""A back end that runs the official azure-iot-hub SDK, unmodified.

Arguments: the hub's connection string and the id of a device to work with. For each operation that
did what it should, one line: "= " and its name.
"""

import sys

from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import QuerySpecification, Twin, TwinProperties

KEYS = ["cHJpbWFyeS1rZXktb2YtdGhlLWRldmljZQ==", "c2Vjb25kYXJ5LWtleS1vZi1pdC1hbGw="]


def main():
    connection_string, device = sys.argv[1:]
    manager = IoTHubRegistryManager.from_connection_string(connection_string)

    created = manager.create_device_with_sas(device, KEYS[0], KEYS[1], "enabled")
    done("create", created.device_id == device and created.status == "enabled")

    found = manager.get_device(device)
    done("get", found.authentication.symmetric_key.primary_key == KEYS[0])

    done("list", device in [one.device_id for one in manager.get_devices(1000)])

    updated = manager.update_device_with_sas(
        device, found.etag, KEYS[0], KEYS[1], "disabled", status_reason="in repair"
    )
    done("update", (updated.status, updated.status_reason) == ("disabled", "in repair"))

    twin = manager.get_twin(device)
    done("twin-get", twin.device_id == device and twin.status == "disabled")

    patch = Twin(tags={"line": 3}, properties=TwinProperties(desired={"interval": 5}))
    twin = manager.update_twin(device, patch, twin.etag)
    desired = twin.properties.desired
    done("twin-update", twin.tags == {"line": 3} and desired["interval"] == 5)

    replacement = Twin(tags={"line": 4}, properties=TwinProperties(desired={"speed": 1}))
    twin = manager.replace_twin(device, replacement, twin.etag)
    desired = twin.properties.desired
    done("twin-replace", twin.tags == {"line": 4} and "interval" not in desired)

    query = QuerySpecification(query=f"SELECT * FROM devices WHERE deviceId = '{device}'")
    found = manager.query_iot_hub(query).items
    done("query", [one.device_id for one in found] == [device] and found[0].tags == {"line": 4})

    manager.delete_device(device, twin.device_etag)
    done("delete", device not in [one.device_id for one in manager.get_devices(1000)])


def done(operation, is_right):
    if not is_right:
        sys.exit(f"{operation} did something else")
    print("=", operation, flush=True)


main()
