import com.google.gson.Gson;
import com.google.gson.JsonObject;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;

/**
 * Commands on standard input, answers on standard output.
 *
 * <p>Every line of standard input is one command, a JSON object with an {@code id}. Commands run side
 * by side; the answer to each is a line that begins with "= " and carries the {@code id}. The
 * harness's {@code sdk::Device} says what commands there are.
 */
final class Lines {
    static final Gson GSON = new Gson();

    /** What does a command. */
    interface Program {
        JsonObject perform(JsonObject command) throws Exception;
    }

    private Lines() {}

    /** Obeys until there are no more commands. */
    static void serve(Program program) throws IOException {
        BufferedReader lines =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            JsonObject command = GSON.fromJson(line, JsonObject.class);
            Thread thread = new Thread(() -> obey(program, command));
            thread.setDaemon(true);
            thread.start();
        }
        System.exit(0);
    }

    static String text(JsonObject command, String name) {
        return command.get(name).getAsString();
    }

    private static void obey(Program program, JsonObject command) {
        JsonObject answer = new JsonObject();
        answer.add("id", command.get("id"));
        try {
            answer.add("result", program.perform(command));
        } catch (Throwable error) { // whatever the SDK throws is the answer
            answer.addProperty("error", described(error));
        }
        synchronized (System.out) {
            System.out.println("= " + GSON.toJson(answer));
        }
    }

    private static String described(Throwable error) {
        StringBuilder text = new StringBuilder();
        for (Throwable one = error; one != null && text.length() < 2000; one = one.getCause()) {
            text.append(text.length() == 0 ? "" : " <- ");
            text.append(one.getClass().getSimpleName()).append(": ").append(one.getMessage());
        }
        return text.toString();
    }
}
