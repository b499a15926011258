import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;

/** The certificate authorities that this process believes. */
final class Trust {
    private static final char[] PASSWORD = "trusted".toCharArray();

    private Trust() {}

    /** Believes the authority of a PEM file and nobody else. */
    static void only(String file) throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, PASSWORD);
        try (InputStream pem = new FileInputStream(file)) {
            CertificateFactory factory = CertificateFactory.getInstance("X.509");
            store.setCertificateEntry("authority", factory.generateCertificate(pem));
        }
        Path path = Files.createTempFile("trust", ".p12");
        path.toFile().deleteOnExit();
        try (OutputStream out = new FileOutputStream(path.toFile())) {
            store.store(out, PASSWORD);
        }
        System.setProperty("javax.net.ssl.trustStore", path.toString());
        System.setProperty("javax.net.ssl.trustStoreType", "PKCS12");
        System.setProperty("javax.net.ssl.trustStorePassword", new String(PASSWORD));
    }
}
