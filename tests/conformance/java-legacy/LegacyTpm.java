import com.microsoft.azure.sdk.iot.provisioning.security.SecurityProviderTpm;
import com.microsoft.azure.sdk.iot.provisioning.security.exceptions.SecurityProviderException;
import java.security.GeneralSecurityException;
import javax.net.ssl.SSLContext;

/** A TPM whose connections believe the JVM's authorities: the SDK's own list is of 2018. */
final class LegacyTpm extends SecurityProviderTpm {
    private final SecurityProviderTpm tpm;

    LegacyTpm(SecurityProviderTpm tpm) {
        this.tpm = tpm;
    }

    @Override
    public String getRegistrationId() throws SecurityProviderException {
        return tpm.getRegistrationId();
    }

    @Override
    public byte[] getEndorsementKey() throws SecurityProviderException {
        return tpm.getEndorsementKey();
    }

    @Override
    public byte[] getStorageRootKey() throws SecurityProviderException {
        return tpm.getStorageRootKey();
    }

    @Override
    public byte[] activateIdentityKey(byte[] key) throws SecurityProviderException {
        return tpm.activateIdentityKey(key);
    }

    @Override
    public byte[] signWithIdentity(byte[] data) throws SecurityProviderException {
        return tpm.signWithIdentity(data);
    }

    @Override
    public SSLContext getSSLContext() throws SecurityProviderException {
        try {
            SSLContext context = SSLContext.getInstance("TLSv1.2");
            context.init(null, null, null);
            return context;
        } catch (GeneralSecurityException error) {
            throw new SecurityProviderException(error);
        }
    }
}
