<?php
// The PHP driver 1.15 behind the protocol of tests/drivers/README.md.
//
// PHP has no threads: a service is a number of processes, each with a client of its own. So is this: the agent reads
// requests and hands operations to worker processes, of which it starts as many as there are operations at a time,
// `maxPoolSize` at most.

declare(strict_types=1);

require __DIR__ . '/worker.php';

/** Failures that one `run` prints one by one; all of them are counted. */
const FAILURES_PRINTED = 300;
/** Where the connection string does not say how many workers there may be. */
const WORKERS_MAX = 100;

function write(array $line): void
{
    fwrite(STDOUT, json_encode($line, JSON_UNESCAPED_SLASHES | JSON_INVALID_UTF8_SUBSTITUTE) . "\n");
}

/** A process that does one operation at a time. */
final class Hand
{
    public ?Closure $answered = null;
    public array $heartbeats = ['started' => 0, 'succeeded' => 0, 'failed' => 0];
    public int $clients = 0;

    /** @param resource $pipe */
    public function __construct(
        public readonly string $name,
        public readonly bool $streams,
        public readonly int $pid,
        public readonly mixed $pipe,
    ) {
    }

    public function ask(array $task, Closure $answered): void
    {
        $this->answered = $answered;
        fwrite($this->pipe, json_encode($task) . "\n");
    }

    /** Takes a line of the worker: an answer or, on the way to it, an event of the driver. */
    public function hear(array $line): void
    {
        if (isset($line['heartbeat'])) {
            $this->heartbeats[$line['heartbeat']]++;
            if ($this->streams && $line['heartbeat'] === 'failed') {
                write(['event' => 'heartbeat_failed', 'name' => $this->name, 'at' => $line['at'], 'error' => $line['error']]);
            }
            return;
        }
        $this->clients = $line['clients'];
        $answered = $this->answered;
        $this->answered = null;
        $answered($line);
    }
}

/** A `run` request under way. */
final class Run
{
    public bool $isStopped = false;
    public int $started = 0;
    public int $underWay = 0;
    public int $done = 0;
    public int $failed = 0;
    public array $errors = [];
    public ?array $result = null;
    public readonly float $begin;
    /** When each idle worker of the run may go on. */
    public array $free;

    public function __construct(public readonly array $request)
    {
        $this->begin = microtime(true);
        $this->free = array_fill(0, $request['concurrency'] ?? 1, $this->begin);
    }

    /** Whether a further operation is to begin, now or later. */
    public function hasMore(): bool
    {
        if ($this->isStopped) {
            return false;
        }
        $seconds = $this->request['seconds'] ?? null;
        if ($seconds !== null) {
            return microtime(true) - $this->begin < $seconds;
        }
        return $this->started < ($this->request['count'] ?? 1);
    }

    public function add(array $line): void
    {
        $this->underWay--;
        $this->free[] = microtime(true) + ($this->request['pause'] ?? 0) / 1000;
        if ($line['ok']) {
            $this->done++;
            $this->result = $line['result'];
            return;
        }
        $this->failed++;
        $this->errors[$line['error']] = ($this->errors[$line['error']] ?? 0) + 1;
        if ($this->failed <= FAILURES_PRINTED) {
            $at = microtime(true);
            write(['event' => 'operation_failed', 'name' => $this->request['name'], 'at' => $at, 'error' => $line['error']]);
        }
    }

    public function answer(): array
    {
        return [
            'done' => $this->done, 'failed' => $this->failed, 'errors' => (object) $this->errors,
            'seconds' => microtime(true) - $this->begin,
            'result' => $this->result === null ? null : (object) $this->result,
        ];
    }
}

final class Agent
{
    /** @var array<string, array> the request that opened a client, by name */
    private array $opened = [];
    /** @var Hand[] */
    private array $hands = [];
    /** @var array<int, Run> by the id of the request */
    private array $runs = [];
    /** @var array<string, array{started: int, succeeded: int, failed: int}> of workers that ended, by name */
    private array $past = [];

    private function handsOf(string $name): array
    {
        return array_filter($this->hands, fn (Hand $hand) => $hand->name === $name);
    }

    private function hire(string $name): Hand
    {
        [$mine, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
        $others = array_map(fn (Hand $hand) => $hand->pipe, $this->hands);
        $pid = pcntl_fork();
        if ($pid === 0) {
            // What stands open here would keep others from noticing an end.
            array_map('fclose', [$mine, STDIN, ...$others]);
            work($theirs, $this->opened[$name]);
            exit(0);
        }
        fclose($theirs);
        return $this->hands[] = new Hand($name, $this->opened[$name]['events'] ?? false, $pid, $mine);
    }

    /** A worker with nothing to do, a new one if need be; null where all that may be are busy. */
    private function idle(string $name): ?Hand
    {
        $hands = $this->handsOf($name);
        foreach ($hands as $hand) {
            if ($hand->answered === null) {
                return $hand;
            }
        }
        parse_str((string) parse_url($this->opened[$name]['uri'], PHP_URL_QUERY), $options);
        return count($hands) < ($options['maxPoolSize'] ?? WORKERS_MAX) ? $this->hire($name) : null;
    }

    /** Begins what may begin, and answers what is over; returns for how many seconds nothing will be due. */
    private function advance(): float
    {
        $wait = 3600.0;
        foreach ($this->runs as $id => $run) {
            $name = $run->request['name'];
            while ($run->free && $run->hasMore()) {
                $due = min($run->free) - microtime(true);
                if ($due > 0) {
                    $wait = min($wait, $due);
                    break;
                }
                if (!isset($this->opened[$name])) {
                    $run->isStopped = true;
                    break;
                }
                $hand = $this->idle($name);
                if ($hand === null) {
                    break;
                }
                unset($run->free[array_search(min($run->free), $run->free, true)]);
                $run->underWay++;
                $task = ['do' => $run->request['operation'], 'args' => $run->request['args'] ?? [], 'number' => ++$run->started];
                $hand->ask($task, $run->add(...));
            }
            if ($run->underWay === 0 && !$run->hasMore()) {
                unset($this->runs[$id]);
                write(['id' => $id, 'ok' => true] + $run->answer());
            }
        }
        return $wait;
    }

    /** Lets workers end when they are done, and waits until they have. */
    private function close(string $name): void
    {
        unset($this->opened[$name]);
        $this->past[$name] ??= ['started' => 0, 'succeeded' => 0, 'failed' => 0];
        foreach ($this->handsOf($name) as $at => $hand) {
            while ($hand->answered !== null && ($line = fgets($hand->pipe)) !== false) {
                $hand->hear(json_decode($line, true));
            }
            foreach ($hand->heartbeats as $word => $count) {
                $this->past[$name][$word] += $count;
            }
            fwrite($hand->pipe, json_encode(['do' => 'close']) . "\n");
            pcntl_waitpid($hand->pid, $status);
            fclose($hand->pipe);
            unset($this->hands[$at]);
        }
    }

    private function stats(string $name): array
    {
        $heartbeats = $this->past[$name] ?? ['started' => 0, 'succeeded' => 0, 'failed' => 0];
        $clients = 0;
        foreach ($this->handsOf($name) as $hand) {
            $clients += $hand->clients;
            foreach ($hand->heartbeats as $word => $count) {
                $heartbeats[$word] += $count;
            }
        }
        return ['source' => 'processes', 'clients' => $clients, 'heartbeats' => $heartbeats];
    }

    /** What is answered at once; null where the answer comes later. */
    private function perform(array $request): ?array
    {
        $name = $request['name'] ?? '';
        switch ($request['do']) {
            case 'open':
                $this->opened[$name] = $request;
                return [];
            case 'run':
                if (!isset($this->opened[$name])) {
                    throw new InvalidArgumentException("no client is called $name");
                }
                $this->runs[$request['id']] = new Run($request);
                return null;
            case 'stop':
                if (isset($this->runs[$request['run']])) {
                    $this->runs[$request['run']]->isStopped = true;
                }
                return [];
            case 'per_request':
                $this->opened[$name] ??= $request;
                $answered = fn (array $line) => write(['id' => $request['id']] + $line);
                $this->hire($name)->ask($request, $answered);
                return null;
            case 'close':
                $this->close($name);
                return [];
            case 'stats':
                return $this->stats($name);
            case 'exit':
                return [];
            default:
                throw new InvalidArgumentException("nothing is called {$request['do']}");
        }
    }

    private function serve(string $line): void
    {
        $request = json_decode($line, true, flags: JSON_THROW_ON_ERROR);
        try {
            $answer = $this->perform($request);
            if ($answer !== null) {
                write(['id' => $request['id'], 'ok' => true] + $answer);
            }
        } catch (Throwable $error) {
            write(['id' => $request['id'], 'ok' => false, 'error' => $error::class . ': ' . $error->getMessage()]);
        }
        if ($request['do'] === 'exit') {
            end_at_once();
        }
    }

    public function run(): void
    {
        stream_set_blocking(STDIN, false);
        $rest = '';
        while (true) {
            $wait = $this->advance();
            $ready = [STDIN, ...array_map(fn (Hand $hand) => $hand->pipe, $this->hands)];
            $none = null;
            stream_select($ready, $none, $none, (int) $wait, (int) (fmod($wait, 1) * 1e6));
            foreach ($this->hands as $at => $hand) {
                if (!in_array($hand->pipe, $ready, true)) {
                    continue;
                }
                $line = fgets($hand->pipe);
                if ($line !== false) {
                    $hand->hear(json_decode($line, true));
                } else {
                    // It died; whoever waits for it hears so.
                    unset($this->hands[$at]);
                    if ($hand->answered !== null) {
                        $hand->hear(['ok' => false, 'error' => 'the worker ended', 'clients' => 0]);
                    }
                }
            }
            if (in_array(STDIN, $ready, true)) {
                $rest .= $read = (string) fread(STDIN, 1 << 16);
                if ($read === '' && feof(STDIN)) {
                    end_at_once();
                }
                $lines = explode("\n", $rest);
                $rest = array_pop($lines);
                array_map($this->serve(...), $lines);
            }
        }
    }
}

write(['event' => 'started', 'driver' => 'php', 'version' => phpversion('mongodb'), 'pid' => getmypid()]);
(new Agent())->run();
