import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import com.microsoft.azure.sdk.iot.device.DeviceClient;
import com.microsoft.azure.sdk.iot.device.DeviceTwin.Property;
import com.microsoft.azure.sdk.iot.device.IotHubClientProtocol;
import com.microsoft.azure.sdk.iot.device.IotHubStatusCode;
import com.microsoft.azure.sdk.iot.device.transport.IotHubConnectionStatus;
import com.microsoft.azure.sdk.iot.device.transport.NoRetry;
import com.microsoft.azure.sdk.iot.provisioning.device.ProvisioningDeviceClient;
import com.microsoft.azure.sdk.iot.provisioning.device.ProvisioningDeviceClientRegistrationResult;
import com.microsoft.azure.sdk.iot.provisioning.device.ProvisioningDeviceClientStatus;
import com.microsoft.azure.sdk.iot.provisioning.device.ProvisioningDeviceClientTransportProtocol;
import com.microsoft.azure.sdk.iot.provisioning.security.SecurityProvider;
import java.io.IOException;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.stream.Collectors;
import org.eclipse.paho.client.mqttv3.MqttException;

/**
 * Devices that run the official Java SDKs of 2018, unmodified. {@link Lines} says how they are told
 * what.
 */
public final class LegacyDevice {
    private static final int SECONDS = 60;
    /** The SDK waits ten seconds before each poll. */
    private static final int REGISTER_SECONDS = 45;
    private static final int ANSWER_SECONDS = 5;
    private static final int CHANCES = 4;
    private static final Map<String, Session> SESSIONS = new ConcurrentHashMap<>();

    /** A connection to a hub, with the twin as it was told last. */
    private static final class Session {
        final DeviceClient client;
        final CountDownLatch lost = new CountDownLatch(1);
        final Map<String, JsonElement> desired = new ConcurrentHashMap<>();
        final Map<String, JsonElement> reported = new ConcurrentHashMap<>();
        /** How the requests about the twin ended, in their order. */
        final BlockingQueue<IotHubStatusCode> ended = new LinkedBlockingQueue<>();

        Session(DeviceClient client) {
            this.client = client;
        }

        void told(Property property) {
            Map<String, JsonElement> section = property.getIsReported() ? reported : desired;
            // The SDK takes every number for a Double.
            Object value = property.getValue();
            boolean isWhole = value instanceof Double && (Double) value % 1 == 0;
            section.put(
                    property.getKey(),
                    Lines.GSON.toJsonTree(isWhole ? ((Double) value).longValue() : value));
        }

        void succeed() throws Exception {
            IotHubStatusCode code = ended.poll(ANSWER_SECONDS, TimeUnit.SECONDS);
            if (code == null) {
                throw new TimeoutException("the hub has not answered");
            }
            if (code != IotHubStatusCode.OK && code != IotHubStatusCode.OK_EMPTY) {
                throw new IOException("the hub has answered " + code);
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        Trust.only(arguments[0]);
        Lines.serve(LegacyDevice::perform);
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
                SESSIONS.remove(Lines.text(command, "session")).client.closeNow();
                return new JsonObject();
            default:
                throw new IllegalArgumentException("no such command");
        }
    }

    private static SecurityProvider security(JsonObject command, String id) throws Exception {
        if (command.has("tpmPort")) {
            int port = command.get("tpmPort").getAsInt();
            boolean registers = Lines.text(command, "do").equals("register");
            return new LegacyTpm(
                    registers ? SimulatedTpm.opened(port, id) : SimulatedTpm.registered(port));
        }
        return new LegacyCertificate(
                id, Lines.text(command, "certificateFile"), Lines.text(command, "keyFile"));
    }

    private static JsonObject register(JsonObject command) throws Exception {
        for (int chance = 1; ; chance++) {
            try {
                return registerOnce(command);
            } catch (TimeoutException | ExecutionException error) {
                if (chance == CHANCES || !isMissed(error)) {
                    throw error;
                }
            }
        }
    }

    /**
     * Whether the SDK has missed an answer, which it can when it comes while it is slow to listen.
     * Applications try again.
     */
    private static boolean isMissed(Throwable error) {
        for (Throwable one = error; one != null; one = one.getCause()) {
            boolean isLate =
                    one instanceof MqttException
                            && ((MqttException) one).getReasonCode()
                                    == MqttException.REASON_CODE_CLIENT_TIMEOUT;
            if (isLate || one instanceof TimeoutException) {
                return true;
            }
        }
        return false;
    }

    private static JsonObject registerOnce(JsonObject command) throws Exception {
        String transport = Lines.text(command, "transport").toUpperCase().replace('-', '_');
        CompletableFuture<ProvisioningDeviceClientRegistrationResult> told =
                new CompletableFuture<>();
        ProvisioningDeviceClient client =
                ProvisioningDeviceClient.create(
                        Lines.text(command, "host"),
                        Lines.text(command, "idScope"),
                        ProvisioningDeviceClientTransportProtocol.valueOf(
                                transport.replace("AMQP", "AMQPS")),
                        security(command, Lines.text(command, "registrationId")));
        try {
            client.registerDevice(
                    (result, error, context) -> {
                        if (error == null) {
                            told.complete(result);
                        } else {
                            told.completeExceptionally(error);
                        }
                    },
                    null);
            return told(told.get(REGISTER_SECONDS, TimeUnit.SECONDS));
        } finally {
            client.closeNow();
        }
    }

    private static JsonObject told(ProvisioningDeviceClientRegistrationResult told) {
        ProvisioningDeviceClientStatus status = told.getProvisioningDeviceClientStatus();
        if (status != ProvisioningDeviceClientStatus.PROVISIONING_DEVICE_STATUS_ASSIGNED) {
            throw new IllegalStateException("status is " + status);
        }
        JsonObject result = new JsonObject();
        result.addProperty("status", "assigned");
        result.addProperty("hub", told.getIothubUri());
        result.addProperty("device", told.getDeviceId());
        return result;
    }

    private static JsonObject connect(JsonObject command) throws Exception {
        for (int chance = 1; ; chance++) {
            Session session = connectOnce(command);
            try {
                session.client.startDeviceTwin(
                        (code, context) -> session.ended.add(code),
                        null,
                        (Property property, Object context) -> session.told(property),
                        null);
                session.succeed();
                SESSIONS.put(Lines.text(command, "session"), session);
                JsonObject result = new JsonObject();
                result.addProperty("connected", true);
                return result;
            } catch (IOException | TimeoutException error) {
                // As with registrations.
                session.client.closeNow();
                if (chance == CHANCES) {
                    throw error;
                }
            }
        }
    }

    private static Session connectOnce(JsonObject command) throws Exception {
        boolean overWebSocket = Lines.text(command, "transport").endsWith("-ws");
        IotHubClientProtocol protocol =
                overWebSocket ? IotHubClientProtocol.MQTT_WS : IotHubClientProtocol.MQTT;
        String device = Lines.text(command, "device");
        DeviceClient client =
                DeviceClient.createFromSecurityProvider(
                        Lines.text(command, "hub"), device, security(command, device), protocol);
        Session session = new Session(client);
        client.setRetryPolicy(new NoRetry());
        client.registerConnectionStatusChangeCallback(
                (status, reason, error, context) -> {
                    if (status == IotHubConnectionStatus.DISCONNECTED) {
                        session.lost.countDown();
                    }
                },
                null);
        client.open();
        return session;
    }

    private static JsonObject twin(JsonObject command) throws Exception {
        Session session = SESSIONS.get(Lines.text(command, "session"));
        session.desired.clear();
        session.reported.clear();
        // The SDK tells that the twin has come before it tells what is in it; once a second one has
        // come, all of the first has been told.
        for (int time = 1; time <= 2; time++) {
            session.client.getDeviceTwin();
            session.succeed();
        }
        JsonObject result = new JsonObject();
        result.add("desired", Lines.GSON.toJsonTree(session.desired));
        result.add("reported", Lines.GSON.toJsonTree(session.reported));
        return result;
    }

    private static JsonObject report(JsonObject command) throws Exception {
        Set<Property> patch =
                command.getAsJsonObject("patch").entrySet().stream()
                        .map(one -> new Property(one.getKey(), plain(one.getValue())))
                        .collect(Collectors.toSet());
        Session session = SESSIONS.get(Lines.text(command, "session"));
        session.client.sendReportedProperties(patch);
        session.succeed();
        return new JsonObject();
    }

    /** The SDK takes no elements of JSON. */
    private static Object plain(JsonElement element) {
        JsonPrimitive primitive = element.getAsJsonPrimitive();
        return primitive.isBoolean() ? primitive.getAsBoolean() : primitive.getAsString();
    }

    /** Waits until the hub has ended the connection. */
    private static JsonObject lost(JsonObject command) throws Exception {
        Session session = SESSIONS.remove(Lines.text(command, "session"));
        JsonObject result = new JsonObject();
        result.addProperty("lost", session.lost.await(SECONDS, TimeUnit.SECONDS));
        session.client.closeNow();
        return result;
    }
}
