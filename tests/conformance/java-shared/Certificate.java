import com.microsoft.azure.sdk.iot.provisioning.security.SecurityProviderX509;
import java.io.ByteArrayInputStream;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.security.Key;
import java.security.KeyFactory;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collection;
import java.util.List;

/** A device's certificate chain and its elliptic-curve key, from PEM files. */
class Certificate extends SecurityProviderX509 {
    private final String registrationId;
    private final List<X509Certificate> chain = new ArrayList<>();
    private final Key key;

    Certificate(String registrationId, String certificateFile, String keyFile) throws Exception {
        this.registrationId = registrationId;
        byte[] pem = Files.readAllBytes(Paths.get(certificateFile));
        CertificateFactory factory = CertificateFactory.getInstance("X.509");
        for (java.security.cert.Certificate one :
                factory.generateCertificates(new ByteArrayInputStream(pem))) {
            chain.add((X509Certificate) one);
        }
        String text = new String(Files.readAllBytes(Paths.get(keyFile)));
        String base64 = text.replaceAll("-----[A-Z ]+-----", "").replaceAll("\\s", "");
        PKCS8EncodedKeySpec encoded = new PKCS8EncodedKeySpec(Base64.getDecoder().decode(base64));
        key = KeyFactory.getInstance("EC").generatePrivate(encoded);
    }

    @Override
    public String getClientCertificateCommonName() {
        return registrationId;
    }

    @Override
    public X509Certificate getClientCertificate() {
        return chain.get(0);
    }

    @Override
    public Key getClientPrivateKey() {
        return key;
    }

    @Override
    public Collection<X509Certificate> getIntermediateCertificatesChain() {
        return chain.subList(1, chain.size());
    }
}
