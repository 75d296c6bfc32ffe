import com.mongodb.MongoClient;
import com.mongodb.MongoClientURI;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicReference;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.bson.Document;
import org.bson.json.JsonMode;
import org.bson.json.JsonWriterSettings;

/** The Java driver 3.6 behind the protocol of tests/drivers/README.md. */
public final class Agent {
    private static final JsonWriterSettings PLAIN =
        JsonWriterSettings.builder().outputMode(JsonMode.RELAXED).build();
    private static final PrintStream OUTPUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    private static final String HOLD = "poolscope-hold-" + ProcessHandle.current().pid();

    private final Map<String, List<MongoClient>> clients = new HashMap<>();
    private final Map<String, List<Reference>> references = new HashMap<>();
    private final Map<String, List<Thread>> held = new HashMap<>();
    private final Map<Integer, Run> runs = new ConcurrentHashMap<>();

    /** Prints one line whole. */
    static void write(Document line) {
        String text = line.toJson(PLAIN);
        synchronized (OUTPUT) {
            OUTPUT.println(text);
        }
    }

    /** Seconds since the epoch. */
    static double now() {
        return System.currentTimeMillis() / 1e3;
    }

    static void sleep(int milliseconds) {
        try {
            Thread.sleep(milliseconds);
        } catch (InterruptedException interrupted) {
            throw new IllegalStateException("nobody interrupts here", interrupted);
        }
    }

    /** A thread that does not keep the process alive. */
    static Thread begin(Runnable work) {
        Thread thread = new Thread(work);
        thread.setDaemon(true);
        thread.start();
        return thread;
    }

    static void await(Thread thread) {
        try {
            thread.join();
        } catch (InterruptedException interrupted) {
            throw new IllegalStateException("nobody interrupts here", interrupted);
        }
    }

    private static <T> T last(Map<String, List<T>> all, String name) {
        List<T> some = all.getOrDefault(name, List.of());
        if (some.isEmpty()) {
            throw new IllegalArgumentException("no client is called " + name);
        }
        return some.get(some.size() - 1);
    }

    private synchronized MongoClient client(Document request) {
        return last(clients, request.getString("name"));
    }

    private Document open(Document request) {
        if (!request.get("options", new Document()).isEmpty()) {
            throw new IllegalArgumentException("this driver takes its options from the URI");
        }
        String name = request.getString("name");
        Reference reference = new Reference(name, request.getBoolean("events", false));
        MongoClient client = new MongoClient(new MongoClientURI(request.getString("uri"), reference.options()));
        synchronized (this) {
            references.computeIfAbsent(name, none -> new ArrayList<>()).add(reference);
            clients.computeIfAbsent(name, none -> new ArrayList<>()).add(client);
        }
        return new Document();
    }

    private Document run(Document request) {
        Run run = new Run(client(request), request);
        runs.put(request.getInteger("id"), run);
        try {
            return run.answer();
        } finally {
            runs.remove(request.getInteger("id"));
        }
    }

    private Document stop(Document request) {
        Run run = runs.get(request.getInteger("run"));
        if (run != null) {
            run.stop();
        }
        return new Document();
    }

    private Document hold(Document request) {
        String name = request.getString("name");
        MongoClient client = client(request);
        Reference reference;
        List<Thread> mine;
        synchronized (this) {
            reference = last(references, name);
            mine = held.computeIfAbsent(name, none -> new ArrayList<>());
        }
        int concurrency = request.getInteger("concurrency", 1);
        int wanted = reference.sleeping() + concurrency;
        Document args = new Document("comment", HOLD)
            .append("milliseconds", request.getInteger("milliseconds", 600000));
        AtomicReference<RuntimeException> failure = new AtomicReference<>();
        for (int number = 0; number < concurrency; number++) {
            mine.add(begin(() -> {
                try {
                    Operations.sleep(client, args, 0);
                } catch (RuntimeException error) {
                    failure.set(error);
                }
            }));
        }
        while (reference.sleeping() < wanted) {
            if (failure.get() != null) {
                throw failure.get();
            }
            sleep(5);
        }
        return new Document();
    }

    private Document release(Document request) {
        List<Thread> mine;
        synchronized (this) {
            mine = held.remove(request.getString("name"));
        }
        if (mine == null) {
            return new Document("held", 0);
        }
        if (request.containsKey("control")) {
            try (MongoClient killer = new MongoClient(new MongoClientURI(request.getString("control")))) {
                while (mine.stream().anyMatch(Thread::isAlive)) {
                    kill(killer);
                    sleep(10);
                }
            }
        }
        mine.forEach(Agent::await);
        return new Document("held", mine.size());
    }

    /** Ends the server's operations that this process holds. */
    private static void kill(MongoClient killer) {
        Document query = new Document("currentOp", true).append("command.comment", HOLD);
        Document reply = killer.getDatabase("admin").runCommand(query);
        for (Object operation : (List<?>) reply.get("inprog")) {
            Object number = ((Document) operation).get("opid");
            killer.getDatabase("admin").runCommand(new Document("killOp", 1).append("op", number));
        }
    }

    private Document perRequest(Document request) {
        Operations.Operation operation = Operations.named(request.get("operation", "find"));
        for (int number = 0; number < request.getInteger("count", 1); number++) {
            open(request);
            operation.perform(client(request), request.get("args", new Document()), number);
            if (request.getBoolean("close", false)) {
                close(request);
            }
            sleep(request.getInteger("pause", 0));
        }
        synchronized (this) {
            return new Document("clients", clients.getOrDefault(request.getString("name"), List.of()).size());
        }
    }

    private Document close(Document request) {
        List<MongoClient> closing;
        synchronized (this) {
            closing = clients.remove(request.getString("name"));
        }
        if (closing != null) {
            closing.forEach(MongoClient::close);
        }
        return new Document();
    }

    private synchronized Document stats(Document request) {
        String name = request.getString("name");
        return Reference.stats(
            references.getOrDefault(name, List.of()), clients.getOrDefault(name, List.of()).size());
    }

    private Document perform(Document request) {
        switch (request.getString("do")) {
            case "open": return open(request);
            case "run": return run(request);
            case "stop": return stop(request);
            case "hold": return hold(request);
            case "release": return release(request);
            case "per_request": return perRequest(request);
            case "close": return close(request);
            case "stats": return stats(request);
            case "exit": return new Document();
            default: throw new IllegalArgumentException("nothing is called " + request.getString("do"));
        }
    }

    private void serve(Document request) {
        Document answer;
        try {
            answer = new Document(perform(request)).append("ok", true);
        } catch (RuntimeException error) {
            answer = new Document("ok", false)
                .append("error", error.getClass().getSimpleName() + ": " + error.getMessage());
        }
        write(answer.append("id", request.get("id")));
    }

    public static void main(String[] args) throws IOException {
        // What it would log is told by its events.
        Logger driver = Logger.getLogger("org.mongodb");
        driver.setLevel(Level.OFF);
        Agent agent = new Agent();
        write(new Document("event", "started").append("driver", "java").append("version", args[0])
            .append("pid", ProcessHandle.current().pid()));
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            Document request = Document.parse(line);
            if (request.getString("do").equals("exit")) {
                agent.serve(request);
                break;
            }
            begin(() -> agent.serve(request));
        }
        // Without the driver's own goodbyes, as an application that is stopped.
        Runtime.getRuntime().halt(0);
    }
}
