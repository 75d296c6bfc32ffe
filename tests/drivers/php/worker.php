<?php
// A process of the PHP agent that does one operation at a time, with clients of its own.

declare(strict_types=1);

use MongoDB\BSON\ObjectId;
use MongoDB\Driver\BulkWrite;
use MongoDB\Driver\Command;
use MongoDB\Driver\Manager;
use MongoDB\Driver\Monitoring\SDAMSubscriber;
use MongoDB\Driver\Monitoring\ServerChangedEvent;
use MongoDB\Driver\Monitoring\ServerClosedEvent;
use MongoDB\Driver\Monitoring\ServerHeartbeatFailedEvent;
use MongoDB\Driver\Monitoring\ServerHeartbeatStartedEvent;
use MongoDB\Driver\Monitoring\ServerHeartbeatSucceededEvent;
use MongoDB\Driver\Monitoring\ServerOpeningEvent;
use MongoDB\Driver\Monitoring\TopologyChangedEvent;
use MongoDB\Driver\Monitoring\TopologyClosedEvent;
use MongoDB\Driver\Monitoring\TopologyOpeningEvent;
use MongoDB\Driver\Query;

/** Signals that end a process cannot be caught by it; see prctl(2). */
const PR_SET_PDEATHSIG = 1;
const ERROR_LENGTH = 200;

/** Ends this process without the driver's own goodbyes; that of the agent takes all its workers along. */
function end_at_once(): never
{
    fflush(STDOUT);
    posix_kill(getmypid(), SIGKILL);
    exit(1);
}

/** Hands the driver's events about servers on; it has none about connections. */
final class Heartbeats implements SDAMSubscriber
{
    public function __construct(private readonly Closure $tell)
    {
    }

    public function serverHeartbeatStarted(ServerHeartbeatStartedEvent $event): void
    {
        ($this->tell)(['heartbeat' => 'started']);
    }

    public function serverHeartbeatSucceeded(ServerHeartbeatSucceededEvent $event): void
    {
        ($this->tell)(['heartbeat' => 'succeeded']);
    }

    public function serverHeartbeatFailed(ServerHeartbeatFailedEvent $event): void
    {
        $error = $event->getError()->getMessage();
        ($this->tell)(['heartbeat' => 'failed', 'at' => microtime(true), 'error' => $error]);
    }

    public function serverChanged(ServerChangedEvent $event): void
    {
    }

    public function serverOpening(ServerOpeningEvent $event): void
    {
    }

    public function serverClosed(ServerClosedEvent $event): void
    {
    }

    public function topologyChanged(TopologyChangedEvent $event): void
    {
    }

    public function topologyOpening(TopologyOpeningEvent $event): void
    {
    }

    public function topologyClosed(TopologyClosedEvent $event): void
    {
    }
}

final class Worker
{
    /** @var Manager[] */
    private array $clients = [];

    public function __construct(private readonly array $opened, private readonly Heartbeats $heartbeats)
    {
    }

    /** A client whose sockets are its own: the driver would have those with equal options share them. */
    private function open(): Manager
    {
        $client = new Manager($this->opened['uri'], [], ['disableClientPersistence' => true]);
        $client->addSubscriber($this->heartbeats);
        return $this->clients[] = $client;
    }

    private function operate(Manager $client, string $operation, array $args, int $number): array
    {
        $namespace = ($args['database'] ?? 'poolscope') . '.' . ($args['collection'] ?? 'items');
        switch ($operation) {
            case 'ping':
                $client->executeCommand('admin', new Command(['ping' => 1]));
                return [];
            case 'insert':
                $id = isset($args['prefix']) ? "{$args['prefix']}-$number" : (string) new ObjectId();
                $made = ['_id' => $id, 'n' => $number, 'from' => 'php'];
                if (($args['bytes'] ?? 0) > 0) {
                    $made['padding'] = str_repeat('x', $args['bytes']);
                }
                $write = new BulkWrite();
                $write->insert($made);
                return ['inserted' => $client->executeBulkWrite($namespace, $write)->getInsertedCount(), '_id' => $id];
            case 'find':
                $how = array_filter(['limit' => $args['limit'] ?? 0, 'batchSize' => $args['batch'] ?? 0]);
                $result = ['documents' => 0, 'bytes' => 0];
                foreach ($client->executeQuery($namespace, new Query([], $how)) as $found) {
                    $result['documents']++;
                    $result['bytes'] += strlen($found->padding ?? '');
                }
                return $result;
            case 'sleep':
                $sleep = ['sleep' => 1, 'millis' => $args['milliseconds'] ?? 1000, 'lock' => 'none'];
                $client->executeCommand('admin', new Command($sleep));
                return [];
            default:
                throw new InvalidArgumentException("$operation is not supported by this driver");
        }
    }

    private function perRequest(array $request): array
    {
        for ($number = 0; $number < ($request['count'] ?? 1); $number++) {
            $this->operate($this->open(), $request['operation'] ?? 'find', $request['args'] ?? [], $number);
            if ($request['close'] ?? false) {
                $this->clients = [];
            }
            usleep(1000 * ($request['pause'] ?? 0));
        }
        return ['ok' => true];
    }

    public function answer(array $task): array
    {
        try {
            if ($task['do'] === 'per_request') {
                $answer = $this->perRequest($task);
            } else {
                $client = $this->clients[0] ?? $this->open();
                $answer = ['ok' => true, 'result' => $this->operate($client, $task['do'], $task['args'], $task['number'])];
            }
        } catch (Throwable $error) {
            $text = $error::class . ': ' . substr($error->getMessage(), 0, ERROR_LENGTH);
            $answer = ['ok' => false, 'error' => $text];
        }
        return $answer + ['clients' => count($this->clients)];
    }
}

/**
 * Works until the agent says `close`, which ends the clients in good order, or is gone: a service that is killed is
 * killed with all its processes.
 *
 * @param resource $pipe
 */
function work(mixed $pipe, array $opened): void
{
    // The one who is in the middle of an operation does not see the pipe end.
    FFI::cdef('int prctl(int option, unsigned long argument);')->prctl(PR_SET_PDEATHSIG, SIGKILL);
    $tell = function (array $line) use ($pipe): void {
        fwrite($pipe, json_encode($line, JSON_INVALID_UTF8_SUBSTITUTE) . "\n");
    };
    $worker = new Worker($opened, new Heartbeats($tell));
    while (($line = fgets($pipe)) !== false) {
        $task = json_decode($line, true);
        if ($task['do'] === 'close') {
            return;
        }
        $tell($worker->answer($task));
    }
    end_at_once();
}
