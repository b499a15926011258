import com.google.gson.JsonObject;
import com.microsoft.azure.sdk.iot.device.ClientOptions;
import com.microsoft.azure.sdk.iot.device.DeviceClient;
import com.microsoft.azure.sdk.iot.device.IotHubClientProtocol;
import com.microsoft.azure.sdk.iot.device.exceptions.IotHubClientException;
import com.microsoft.azure.sdk.iot.device.transport.IotHubConnectionStatus;
import com.microsoft.azure.sdk.iot.device.twin.Twin;
import com.microsoft.azure.sdk.iot.device.twin.TwinCollection;
import com.microsoft.azure.sdk.iot.provisioning.device.AdditionalData;
import com.microsoft.azure.sdk.iot.provisioning.device.ProvisioningDeviceClient;
import com.microsoft.azure.sdk.iot.provisioning.device.ProvisioningDeviceClientRegistrationResult;
import com.microsoft.azure.sdk.iot.provisioning.device.ProvisioningDeviceClientStatus;
import com.microsoft.azure.sdk.iot.provisioning.device.ProvisioningDeviceClientTransportProtocol;
import com.microsoft.azure.sdk.iot.provisioning.device.internal.exceptions.ProvisioningDeviceClientException;
import com.microsoft.azure.sdk.iot.provisioning.security.SecurityProvider;
import com.microsoft.azure.sdk.iot.provisioning.security.SecurityProviderSymmetricKey;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** Devices that run the official Java SDKs, unmodified. {@link Lines} says how they are told what. */
public final class Device {
    private static final int SECONDS = 60;
    private static final int REGISTER_SECONDS = 25;
    private static final int ANSWER_MILLISECONDS = 5000;
    private static final int CHANCES = 4;
    private static final Map<String, Session> SESSIONS = new ConcurrentHashMap<>();

    /** A connection to a hub. */
    private static final class Session {
        final DeviceClient client;
        final CountDownLatch lost = new CountDownLatch(1);
        volatile boolean isReopening;

        Session(DeviceClient client) {
            this.client = client;
        }
    }

    public static void main(String[] arguments) throws Exception {
        // What a person does with keytool and -Djavax.net.ssl.trustStore.
        Trust.only(arguments[0]);
        Lines.serve(Device::perform);
    }

    private static JsonObject perform(JsonObject command) throws Exception {
        switch (Lines.text(command, "do")) {
            case "register":
                return register(command);
            case "connect":
                return connect(command);
            case "twin":
                return twin(command);
            case "report":
                return report(command);
            case "lost":
                return lost(command);
            case "close":
                SESSIONS.remove(Lines.text(command, "session")).client.close();
                return new JsonObject();
            default:
                throw new IllegalArgumentException("no such command");
        }
    }

    private static SecurityProvider security(JsonObject command, String registrationId)
            throws Exception {
        if (command.has("key")) {
            byte[] key = Lines.text(command, "key").getBytes(StandardCharsets.UTF_8);
            return new SecurityProviderSymmetricKey(key, registrationId);
        }
        if (command.has("tpmPort")) {
            int port = command.get("tpmPort").getAsInt();
            boolean registers = Lines.text(command, "do").equals("register");
            return registers
                    ? SimulatedTpm.opened(port, registrationId)
                    : SimulatedTpm.registered(port);
        }
        return new Certificate(
                registrationId, Lines.text(command, "certificateFile"), Lines.text(command, "keyFile"));
    }

    private static JsonObject register(JsonObject command) throws Exception {
        String transport = Lines.text(command, "transport").toUpperCase().replace('-', '_');
        for (int chance = 1; ; chance++) {
            ProvisioningDeviceClient client =
                    ProvisioningDeviceClient.create(
                            Lines.text(command, "host"),
                            Lines.text(command, "idScope"),
                            ProvisioningDeviceClientTransportProtocol.valueOf(
                                    transport.replace("AMQP", "AMQPS")),
                            security(command, Lines.text(command, "registrationId")));
            try {
                return told(client.registerDeviceSync(data(command), REGISTER_SECONDS));
            } catch (ProvisioningDeviceClientException error) {
                // The SDK can miss an answer that comes while it is slow to listen. Applications
                // register again.
                boolean isMissed =
                        error.getCause() instanceof TimeoutException
                                || String.valueOf(error.getMessage()).startsWith("Timed out");
                if (chance == CHANCES || !isMissed) {
                    throw error;
                }
            } finally {
                client.close();
            }
        }
    }

    private static AdditionalData data(JsonObject command) {
        AdditionalData data = new AdditionalData();
        if (command.has("payload")) {
            data.setProvisioningPayload(Lines.GSON.toJson(command.get("payload")));
        }
        return data;
    }

    private static JsonObject told(ProvisioningDeviceClientRegistrationResult told) {
        if (told.getProvisioningDeviceClientStatus()
                != ProvisioningDeviceClientStatus.PROVISIONING_DEVICE_STATUS_ASSIGNED) {
            throw new IllegalStateException("status is " + told.getProvisioningDeviceClientStatus());
        }
        JsonObject result = new JsonObject();
        result.addProperty("status", told.getStatus());
        result.addProperty("hub", told.getIothubUri());
        result.addProperty("device", told.getDeviceId());
        result.addProperty("substatus", camelCase(told.getSubstatus()));
        return result;
    }

    /** The name of an enum's constant as it was on the wire. */
    private static String camelCase(Enum<?> constant) {
        StringBuilder text = new StringBuilder();
        for (String word : constant.name().toLowerCase().split("_")) {
            boolean isFirst = text.length() == 0;
            text.append(isFirst ? word : word.substring(0, 1).toUpperCase() + word.substring(1));
        }
        return text.toString();
    }

    private static JsonObject connect(JsonObject command) throws Exception {
        boolean overWebSocket = Lines.text(command, "transport").endsWith("-ws");
        IotHubClientProtocol protocol =
                overWebSocket ? IotHubClientProtocol.MQTT_WS : IotHubClientProtocol.MQTT;
        String device = Lines.text(command, "device");
        SecurityProvider security = security(command, device);
        DeviceClient client =
                new DeviceClient(
                        Lines.text(command, "hub"),
                        device,
                        security,
                        protocol,
                        ClientOptions.builder().sslContext(security.getSSLContext()).build());
        Session session = new Session(client);
        client.setConnectionStatusChangeCallback(
                change -> {
                    boolean isUp = change.getNewStatus() == IotHubConnectionStatus.CONNECTED;
                    if (!isUp && !session.isReopening) {
                        session.lost.countDown();
                    }
                },
                null);
        client.open(false);
        client.subscribeToDesiredProperties((desired, context) -> {}, null);
        SESSIONS.put(Lines.text(command, "session"), session);
        JsonObject result = new JsonObject();
        result.addProperty("connected", true);
        return result;
    }

    private static JsonObject twin(JsonObject command) throws Exception {
        Session session = SESSIONS.get(Lines.text(command, "session"));
        Twin twin = repeated(session, () -> session.client.getTwin(ANSWER_MILLISECONDS));
        JsonObject result = new JsonObject();
        result.add("desired", Lines.GSON.toJsonTree(twin.getDesiredProperties()));
        result.add("reported", Lines.GSON.toJsonTree(twin.getReportedProperties()));
        return result;
    }

    private static JsonObject report(JsonObject command) throws Exception {
        TwinCollection patch = new TwinCollection();
        command.getAsJsonObject("patch")
                .entrySet()
                .forEach(member -> patch.put(member.getKey(), member.getValue()));
        Session session = SESSIONS.get(Lines.text(command, "session"));
        repeated(
                session,
                () -> session.client.updateReportedProperties(patch, ANSWER_MILLISECONDS));
        return new JsonObject();
    }

    /**
     * The SDK can miss an answer that comes while it still handles the one before, which a hub on
     * the same machine is quick enough for. Applications connect again and ask again.
     */
    private static <T> T repeated(Session session, Callable<T> request) throws Exception {
        for (int chance = 1; ; chance++) {
            try {
                return request.call();
            } catch (IotHubClientException error) {
                if (chance == CHANCES) {
                    throw error;
                }
                session.isReopening = true;
                session.client.close();
                session.client.open(false);
                session.client.subscribeToDesiredProperties((desired, context) -> {}, null);
                session.isReopening = false;
            }
        }
    }

    /** Waits until the hub has ended the connection. */
    private static JsonObject lost(JsonObject command) throws Exception {
        Session session = SESSIONS.remove(Lines.text(command, "session"));
        JsonObject result = new JsonObject();
        result.addProperty("lost", session.lost.await(SECONDS, TimeUnit.SECONDS));
        session.client.close();
        return result;
    }
}
