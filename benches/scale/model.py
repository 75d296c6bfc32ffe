"""What poolscope costs as straight lines, and what follows from them for sizes that nobody has at hand."""

from dataclasses import dataclass


@dataclass
class Line:
    """`base + slope * size`, by least squares over relative error, so that small sizes count like large ones."""

    base: float
    slope: float
    # (size, measured)
    points: list

    @classmethod
    def through(cls, points):
        weights = [1 / measured**2 for _, measured in points]
        total = sum(weights)
        mean_x = sum(w * x for w, (x, _) in zip(weights, points)) / total
        mean_y = sum(w * y for w, (_, y) in zip(weights, points)) / total
        spread = sum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, points))
        slope = sum(w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, points)) / spread
        return cls(mean_y - slope * mean_x, slope, points)

    def at(self, size):
        return self.base + self.slope * size

    def worst(self):
        """The largest difference between a measured point and the line, as a share of the point."""
        return max(abs(self.at(size) / measured - 1) for size, measured in self.points)


@dataclass
class Costs:
    """CPU in microseconds, memory in bytes."""

    # A small exchange, by how many connections carry them at once: (connections, CPU).
    operation: list
    # CPU of a find by the bytes of its reply: as far as replies are copied.
    byte: Line
    # CPU of a connection that is opened, says hello, and is closed.
    opening: float
    # Resident memory by idle connections.
    connection: Line
    # CPU a second that an idle connection takes, most of it the samples of its sockets.
    idle: float
    # Resident memory by client instances, connections taken off.
    client: Line
    # Series of an exposition by client instances.
    series: Line
    # Bytes of an exposition, and CPU of a scrape, by client instances.
    exposition: Line
    scrape: Line

    def small_operation(self):
        """CPU of a small exchange with many connections at work."""
        return self.operation[-1][1]


# What a worker is loaded with in plans: beyond, requests queue behind each other.
LOAD = 0.7
# Of a machine that is there for poolscope alone.
CORES = [1, 2, 4, 8, 16, 32, 64]


def carried(costs, cores):
    """Operations a second of 1 KB, gigabits a second of 64 KB replies, connections opened a second."""
    budget = cores * LOAD * 1e6
    operation = budget / costs.byte.at(1024)
    large = 64 * 1024
    bits = budget / costs.byte.at(large) * large * 8 / 1e9
    return operation, bits, budget / costs.opening


def sidecar(costs, operations, connections, clients=1):
    """Share of a core and resident bytes of one poolscope beside one application."""
    cpu = operations * costs.operation[1][1] + connections * costs.idle
    memory = costs.connection.at(connections) + clients * costs.client.slope
    return cpu / 1e6, memory
