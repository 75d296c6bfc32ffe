import com.mongodb.MongoClientOptions;
import com.mongodb.connection.ConnectionId;
import com.mongodb.connection.ServerId;
import com.mongodb.event.CommandFailedEvent;
import com.mongodb.event.CommandListener;
import com.mongodb.event.CommandStartedEvent;
import com.mongodb.event.CommandSucceededEvent;
import com.mongodb.event.ConnectionAddedEvent;
import com.mongodb.event.ConnectionCheckedInEvent;
import com.mongodb.event.ConnectionCheckedOutEvent;
import com.mongodb.event.ConnectionPoolClosedEvent;
import com.mongodb.event.ConnectionPoolListenerAdapter;
import com.mongodb.event.ConnectionPoolOpenedEvent;
import com.mongodb.event.ConnectionRemovedEvent;
import com.mongodb.event.ServerHeartbeatFailedEvent;
import com.mongodb.event.ServerHeartbeatStartedEvent;
import com.mongodb.event.ServerHeartbeatSucceededEvent;
import com.mongodb.event.ServerMonitorListener;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.bson.Document;

/**
 * What the driver's events say about one client. They are older than the specification of CMAP: a pool that is
 * cleared says nothing, nobody tells why a connection ended, and one that is added was not connected yet.
 */
final class Reference extends ConnectionPoolListenerAdapter implements ServerMonitorListener, CommandListener {
    private final String name;
    private final boolean streams;
    /** Connections by the driver's own number, which is the only part of their ids that never changes. */
    private final Map<Integer, ServerId> open = new HashMap<>();
    private final Set<Integer> checkedOut = new HashSet<>();
    /** Added, and not handed out yet. A pool that was cleared meanwhile drops them before they are connected. */
    private final Set<Integer> untried = new HashSet<>();
    private final Set<ServerId> closedPools = new HashSet<>();
    private int created;
    private int failed;
    private int dropped;
    private int closed;
    private int sleeping;
    private int heartbeatsStarted;
    private int heartbeatsSucceeded;
    private int heartbeatsFailed;

    Reference(String name, boolean streams) {
        this.name = name;
        this.streams = streams;
    }

    /** Subscribes to all events that the options can hand out. */
    MongoClientOptions.Builder options() {
        return MongoClientOptions.builder()
            .addConnectionPoolListener(this)
            .addServerMonitorListener(this)
            .addCommandListener(this);
    }

    private void saw(String event, Document details) {
        if (streams) {
            Document line = new Document("event", event).append("name", name).append("at", Agent.now());
            line.putAll(details);
            Agent.write(line);
        }
    }

    @Override
    public void connectionPoolOpened(ConnectionPoolOpenedEvent event) {
        saw("pool_created", new Document());
    }

    /** From here on the driver is silent about connections that end when they are given back. */
    @Override
    public synchronized void connectionPoolClosed(ConnectionPoolClosedEvent event) {
        closedPools.add(event.getServerId());
        Map.copyOf(open).forEach((connection, server) -> {
            if (server.equals(event.getServerId()) && !checkedOut.contains(connection)) {
                ended(connection);
            }
        });
        saw("pool_closed", new Document());
    }

    @Override
    public synchronized void connectionAdded(ConnectionAddedEvent event) {
        ConnectionId id = event.getConnectionId();
        open.put(id.getLocalValue(), id.getServerId());
        untried.add(id.getLocalValue());
        created++;
        saw("created", new Document("connection", id.getLocalValue()));
    }

    @Override
    public synchronized void connectionRemoved(ConnectionRemovedEvent event) {
        ended(event.getConnectionId().getLocalValue());
    }

    private void ended(int connection) {
        // Whatever is used is checked in before it ends; one that is not could not be connected.
        if (checkedOut.remove(connection)) {
            failed++;
        }
        if (untried.remove(connection)) {
            dropped++;
        }
        if (open.remove(connection) != null) {
            closed++;
            saw("closed", new Document("connection", connection));
        }
    }

    @Override
    public synchronized void connectionCheckedOut(ConnectionCheckedOutEvent event) {
        checkedOut.add(event.getConnectionId().getLocalValue());
        untried.remove(event.getConnectionId().getLocalValue());
    }

    @Override
    public synchronized void connectionCheckedIn(ConnectionCheckedInEvent event) {
        int connection = event.getConnectionId().getLocalValue();
        checkedOut.remove(connection);
        if (closedPools.contains(event.getConnectionId().getServerId())) {
            ended(connection);
        }
    }

    // The driver's own spelling.
    @Override
    public synchronized void serverHearbeatStarted(ServerHeartbeatStartedEvent event) {
        heartbeatsStarted++;
    }

    @Override
    public synchronized void serverHeartbeatSucceeded(ServerHeartbeatSucceededEvent event) {
        heartbeatsSucceeded++;
    }

    @Override
    public synchronized void serverHeartbeatFailed(ServerHeartbeatFailedEvent event) {
        heartbeatsFailed++;
        saw("heartbeat_failed", new Document("error", String.valueOf(event.getThrowable())));
    }

    @Override
    public synchronized void commandStarted(CommandStartedEvent event) {
        if (event.getCommandName().equals("sleep")) {
            sleeping++;
        }
    }

    @Override
    public void commandSucceeded(CommandSucceededEvent event) {}

    @Override
    public void commandFailed(CommandFailedEvent event) {}

    /** Commands called sleep that were sent. */
    synchronized int sleeping() {
        return sleeping;
    }

    /** The counts of all clients of one name, closed ones included. */
    static Document stats(List<Reference> references, int clients) {
        int created = 0;
        int ready = 0;
        int closed = 0;
        int open = 0;
        int checkedOut = 0;
        int[] heartbeats = new int[3];
        for (Reference reference : references) {
            synchronized (reference) {
                created += reference.created;
                ready += reference.created - reference.failed - reference.dropped;
                closed += reference.closed;
                open += reference.open.size();
                checkedOut += reference.checkedOut.size();
                heartbeats[0] += reference.heartbeatsStarted;
                heartbeats[1] += reference.heartbeatsSucceeded;
                heartbeats[2] += reference.heartbeatsFailed;
            }
        }
        return new Document("source", "cmap")
            .append("clients", clients)
            .append("created", created)
            .append("ready", ready)
            .append("closed", closed == 0 ? new Document() : new Document("unreported", closed))
            .append("open", open)
            .append("checked_out", checkedOut)
            .append("checkout_failed", new Document())
            .append("cleared", null)
            .append("heartbeats", new Document("started", heartbeats[0])
                .append("succeeded", heartbeats[1]).append("failed", heartbeats[2]));
    }
}
