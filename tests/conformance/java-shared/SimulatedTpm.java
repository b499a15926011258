import com.microsoft.azure.sdk.iot.provisioning.security.SecurityProviderTpm;
import com.microsoft.azure.sdk.iot.provisioning.security.hsm.SecurityProviderTPMHsm;
import java.lang.reflect.Field;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import sun.misc.Unsafe;
import tss.Tpm;
import tss.TpmFactory;
import tss.tpm.TPM_HANDLE;

/**
 * A device's TPM, which is reached as a simulator, with the SDK's own provider for TPMs on it.
 *
 * <p>The provider's constructors know no TPM but the machine's, so it is made without them: what they
 * would put into its fields is read from the TPM, where it lies at the handles at which they look for it.
 */
final class SimulatedTpm {
    private static final TPM_HANDLE ENDORSEMENT_KEY = TPM_HANDLE.persistent(0x00010001);
    private static final TPM_HANDLE STORAGE_ROOT_KEY = TPM_HANDLE.persistent(0x00000001);
    /** By the port of the simulator. */
    private static final Map<Integer, SimulatedTpm> OPEN = new ConcurrentHashMap<>();

    private final Tpm tpm;
    private final SecurityProviderTpm provider;

    private SimulatedTpm(int port, String registrationId) throws Exception {
        tpm = TpmFactory.remoteTpm("127.0.0.1", port);
        provider = provider(tpm, registrationId);
    }

    /**
     * The provider for a registration. The SDK leaves a session in the TPM with each key that it is
     * given, and a TPM has room for three: applications have to open it anew.
     */
    static SecurityProviderTpm opened(int port, String registrationId) throws Exception {
        SimulatedTpm before = OPEN.put(port, new SimulatedTpm(port, registrationId));
        if (before != null) {
            before.tpm.close();
        }
        return OPEN.get(port).provider;
    }

    /** The provider of the last registration: it alone remembers which key the TPM was given. */
    static SecurityProviderTpm registered(int port) {
        return OPEN.get(port).provider;
    }

    private static SecurityProviderTpm provider(Tpm tpm, String registrationId) throws Exception {
        Field field = Unsafe.class.getDeclaredField("theUnsafe");
        field.setAccessible(true);
        Unsafe unsafe = (Unsafe) field.get(null);
        Object provider = unsafe.allocateInstance(SecurityProviderTPMHsm.class);
        set(provider, "registrationId", registrationId);
        set(provider, "tpm", tpm);
        set(provider, "ekPublic", tpm.ReadPublic(ENDORSEMENT_KEY).outPublic);
        set(provider, "srkPublic", tpm.ReadPublic(STORAGE_ROOT_KEY).outPublic);
        return (SecurityProviderTpm) provider;
    }

    private static void set(Object provider, String name, Object value) throws Exception {
        Field field = SecurityProviderTPMHsm.class.getDeclaredField(name);
        field.setAccessible(true);
        field.set(provider, value);
    }
}
