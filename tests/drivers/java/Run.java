import com.mongodb.MongoClient;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import org.bson.Document;

/** A request that repeats an operation. */
final class Run {
    /** Failures that are printed one by one; all of them are counted. */
    private static final int FAILURES_PRINTED = 300;
    private static final int ERROR_LENGTH = 200;

    private final MongoClient client;
    private final Document request;
    private final Operations.Operation operation;
    private final Document args;
    private final int count;
    private final int concurrency;
    private final Number seconds;
    private final long begin = System.nanoTime();
    private final AtomicInteger started = new AtomicInteger();
    private volatile boolean isStopped;
    private final Document errors = new Document();
    private Document result;
    private int done;
    private int failed;

    Run(MongoClient client, Document request) {
        this.client = client;
        this.request = request;
        operation = Operations.named(request.getString("operation"));
        args = request.get("args", new Document());
        count = request.getInteger("count", 1);
        concurrency = request.getInteger("concurrency", 1);
        seconds = request.get("seconds", Number.class);
    }

    void stop() {
        isStopped = true;
    }

    private double elapsed() {
        return (System.nanoTime() - begin) / 1e9;
    }

    /** The number of the next operation; 0 where there is to be none. */
    private int next() {
        if (isStopped || (seconds != null && elapsed() >= seconds.doubleValue())) {
            return 0;
        }
        int number = started.incrementAndGet();
        return seconds == null && number > count ? 0 : number;
    }

    private void work() {
        for (int number = next(); number > 0; number = next()) {
            if (number > concurrency) {
                Agent.sleep(request.getInteger("pause", 0));
            }
            try {
                add(operation.perform(client, args, number));
            } catch (RuntimeException error) {
                add(error);
            }
        }
    }

    private synchronized void add(Document result) {
        done++;
        this.result = result;
    }

    private synchronized void add(RuntimeException error) {
        failed++;
        String text = String.valueOf(error.getMessage());
        text = error.getClass().getSimpleName() + ": " + text.substring(0, Math.min(ERROR_LENGTH, text.length()));
        errors.put(text, errors.getInteger(text, 0) + 1);
        if (failed <= FAILURES_PRINTED) {
            Agent.write(new Document("event", "operation_failed")
                .append("name", request.getString("name")).append("at", Agent.now()).append("error", text));
        }
    }

    Document answer() {
        List<Thread> workers = new ArrayList<>();
        for (int worker = 0; worker < concurrency; worker++) {
            workers.add(Agent.begin(this::work));
        }
        workers.forEach(Agent::await);
        synchronized (this) {
            return new Document("done", done).append("failed", failed).append("errors", errors)
                .append("seconds", elapsed()).append("result", result);
        }
    }
}
