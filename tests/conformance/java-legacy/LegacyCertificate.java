import com.microsoft.azure.sdk.iot.provisioning.security.exceptions.SecurityProviderException;
import java.io.IOException;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.List;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;

/** A certificate whose connections believe the JVM's authorities: the SDK's own list is of 2018. */
final class LegacyCertificate extends Certificate {
    private static final char[] PASSWORD = "of a store in memory".toCharArray();

    LegacyCertificate(String registrationId, String certificateFile, String keyFile)
            throws Exception {
        super(registrationId, certificateFile, keyFile);
    }

    @Override
    public SSLContext getSSLContext() throws SecurityProviderException {
        try {
            List<X509Certificate> chain = new ArrayList<>();
            chain.add(getClientCertificate());
            chain.addAll(getIntermediateCertificatesChain());
            KeyStore store = KeyStore.getInstance("PKCS12");
            store.load(null, PASSWORD);
            X509Certificate[] certificates = chain.toArray(new X509Certificate[0]);
            store.setKeyEntry("device", getClientPrivateKey(), PASSWORD, certificates);
            KeyManagerFactory keys =
                    KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
            keys.init(store, PASSWORD);
            SSLContext context = SSLContext.getInstance("TLSv1.2");
            context.init(keys.getKeyManagers(), null, null);
            return context;
        } catch (GeneralSecurityException | IOException error) {
            throw new SecurityProviderException(error);
        }
    }
}
