"""A back end that runs the official azure-iot-hub SDK, unmodified.

Arguments: the hub's connection string, the id of a device to work with, and the id of a connected
device that answers the method "identify". For each operation that did what it should, one line: "= "
and its name.
"""

import sys

from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import (
    CloudToDeviceMethod,
    ExportImportDevice,
    QuerySpecification,
    Twin,
    TwinProperties,
)

KEYS = ["cHJpbWFyeS1rZXktb2YtdGhlLWRldmljZQ==", "c2Vjb25kYXJ5LWtleS1vZi1pdC1hbGw="]


def main():
    connection_string, device, answering = sys.argv[1:]
    manager = IoTHubRegistryManager.from_connection_string(connection_string)
    devices(manager, device)
    modules(manager, device)
    methods(manager, answering)
    bulk(manager, device)
    done("delete", deleted(manager, device))


def devices(manager, device):
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
    # Modules of a device that is disabled cannot be worked with.
    manager.update_device_with_sas(device, updated.etag, KEYS[0], KEYS[1], "enabled")

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



def modules(manager, device):
    module = "pump"
    created = manager.create_module_with_sas(device, module, "nobody", *KEYS)
    done("module-create", (created.device_id, created.module_id) == (device, module))

    found = manager.get_module(device, module)
    done("module-get", found.authentication.symmetric_key.primary_key == KEYS[0])

    done("module-list", [one.module_id for one in manager.get_modules(device)] == [module])

    updated = manager.update_module_with_sas(
        device, module, "nobody", found.etag, KEYS[1], KEYS[0]
    )
    done("module-update", updated.authentication.symmetric_key.primary_key == KEYS[1])

    twin = manager.get_module_twin(device, module)
    done("module-twin-get", twin.module_id == module)

    patch = Twin(tags={"line": 3}, properties=TwinProperties(desired={"interval": 5}))
    twin = manager.update_module_twin(device, module, patch, twin.etag)
    desired = twin.properties.desired
    done("module-twin-update", twin.tags == {"line": 3} and desired["interval"] == 5)

    replacement = Twin(tags={"line": 4}, properties=TwinProperties(desired={"speed": 1}))
    twin = manager.replace_module_twin(device, module, replacement, twin.etag)
    desired = twin.properties.desired
    done("module-twin-replace", twin.tags == {"line": 4} and "interval" not in desired)

    manager.delete_module(device, module, updated.etag)
    done("module-delete", manager.get_modules(device) == [])


def methods(manager, answering):
    method = CloudToDeviceMethod(
        method_name="identify", payload={"loud": True}, response_timeout_in_seconds=20
    )
    answer = manager.invoke_device_method(answering, method)
    done("method", (answer.status, answer.payload) == (200, {"echo": {"loud": True}}))


def bulk(manager, device):
    statistics = manager.get_device_registry_statistics()
    done("statistics", statistics.total_device_count >= statistics.enabled_device_count >= 1)

    ids = [f"{device}-{number}" for number in (1, 2, 3)]

    def all_of_them(mode):
        many = [ExportImportDevice(id=one, import_mode=mode, status="enabled") for one in ids]
        return manager.bulk_create_or_update_devices(many)

    created = all_of_them("create")
    known = [one.device_id for one in manager.get_devices(1000)]
    done("bulk-create", created.is_successful and set(ids) <= set(known))

    removed = all_of_them("delete")
    known = [one.device_id for one in manager.get_devices(1000)]
    done("bulk-delete", removed.is_successful and not set(ids) & set(known))


def deleted(manager, device):
    manager.delete_device(device, manager.get_device(device).etag)
    return device not in [one.device_id for one in manager.get_devices(1000)]


def done(operation, is_right):
    if not is_right:
        sys.exit(f"{operation} did something else")
    print("=", operation, flush=True)


main()
