"""Runs orchestrations on the engine alone: one thread, no store, a clock that jumps to the next timer.

`World(live=True)` keeps executions between turns as the runtime does; `live=False` replays stored history in every turn.
Both must give the same histories.
"""

import json
from collections import deque

from duroxide.context import OrchestrationContext
from duroxide.engine._replay import needs_load, run_turn
from duroxide.engine._turn import Turn, WorkResult
from duroxide.events import activity_completed_item, activity_failed_item, application_failure
from duroxide.storage.base import ClaimedTurn, Loaded


class Row:
    """One stored instance."""

    def __init__(self):
        self.name = self.version = self.status = self.output = self.parent = self.custom_status = None
        self.status_version = 0
        self.execution_id = 0
        self.histories = {}
        self.kv, self.kv_delta = {}, {}


class World:
    max_attempts = 10

    def __init__(self, live=True, local=True):
        self.live, self.local = live, local
        self.functions, self.activities = {}, {}
        self.rows, self.queue, self.work = {}, deque(), deque()
        self.timers, self.executions = [], {}
        self.now, self.row_id, self.guids, self.turns = 1_000, 0, 0, 0
        self.warnings, self.outcomes, self.deleted_work = [], [], []
        self.attempts = {}

    # what the engine asks
    def resolve(self, name, version):
        versions = self.functions.get(name, {})
        if version is None:
            return max(versions.items()) if versions else None
        return (version, versions[version]) if version in versions else None

    def context(self, execution):
        return OrchestrationContext(execution)

    def parent_execution(self, instance):
        return self.rows[instance].execution_id if instance in self.rows else 1

    def guid(self):
        self.guids += 1
        return f"00000000-0000-4000-8000-{self.guids:012d}"

    # what tests do
    def orchestration(self, function, name=None, version="1.0.0"):
        self.functions.setdefault(name or function.__name__, {})[version] = function
        return function

    def activity(self, function):
        self.activities[function.__name__] = function
        return function

    def send(self, *items):
        for text in items:
            body = next(iter(json.loads(text).values()))
            self.row_id += 1
            self.queue.append((body.get("instance") or body["parent_instance"], self.row_id, text))

    def run(self, until=10_000):
        """Until nothing moves; activities run when no message waits, then timers."""
        for _ in range(until):
            if self.queue:
                self.turn(self.queue[0][0])
            elif self.work:
                self.execute(self.work.popleft())
            elif self.timers:
                self.timers.sort(key=lambda t: (t[0], t[1]))
                at, row, instance, text = self.timers.pop(0)
                self.now = max(self.now, at)
                self.queue.append((instance, row, text))
            else:
                return
        raise AssertionError("does not come to rest")

    def execute(self, work):
        if (work.instance, work.execution_id, work.activity_id) in self.deleted_work:
            return
        try:
            result = json.dumps(self.activities[work.name](json.loads(work.input)))
            item = activity_completed_item(work.instance, work.execution_id, work.activity_id, result)
            ok, payload = True, result
        except Exception as error:
            text = f"Activity '{work.name}' call failed: {type(error).__name__}: {error}"
            ok, payload = False, application_failure(text)
            item = activity_failed_item(work.instance, work.execution_id, work.activity_id, payload)
        if self.local and self.live and self.executions.get(work.instance) is not None:
            self.turn(work.instance, [WorkResult(work.instance, work.execution_id, work.activity_id, ok, payload, 1, "t")])
        else:
            self.send(item)

    def turn(self, instance, results=()):
        row = self.rows.get(instance)
        mine = [m for m in self.queue if m[0] == instance]
        self.queue = deque(m for m in self.queue if m[0] != instance)
        attempt = self.attempts.get(instance, 0) + 1
        messages = [(i, text, attempt) for _, i, text in mine]
        history = row.histories.get(row.execution_id, []) if row else []
        claim = ClaimedTurn(
            instance, "lease", messages, attempt, row.execution_id if row else 0, len(history), row.name if row else None,
            row.version if row else None, row.status if row else None,
        )
        execution = self.executions.pop(instance, None) if self.live else None
        turn = Turn(claim, instance, "lease", execution)
        turn.results.extend(results)
        loaded = self.load(instance) if needs_load(turn) else None
        ran = run_turn(turn, loaded, self, self.now)
        self.turns += 1
        self.warnings += ran.warnings
        self.outcomes.append(ran.outcome)
        if ran.back is not None:
            self.attempts[instance] = attempt - 1 if ran.back.refund else attempt
            self.now += ran.back.delay_ms
            self.queue.extend(mine)
            return
        self.attempts.pop(instance, None)
        self.commit(ran.done)
        if ran.execution is not None and self.live:
            self.executions[instance] = ran.execution
        elif ran.execution is not None:
            ran.execution.close()

    def load(self, instance):
        row = self.rows[instance]
        events = [(id, text) for id, _, text in row.histories.get(row.execution_id, [])]
        return Loaded(
            instance, row.execution_id, row.name, row.version, row.status, row.output, row.parent, row.custom_status,
            row.status_version, events, dict(row.kv), dict(row.kv_delta),
        )

    def commit(self, done):
        if done.name is not None:
            row = self.rows.setdefault(done.instance, Row())
            row.name, row.version, row.parent = done.name, done.version, done.parent
            row.execution_id, row.status, row.output = done.execution_id, "Running", None
        row = self.rows.get(done.instance)
        if row is None:
            return
        history = row.histories.setdefault(done.execution_id, [])
        for id, kind, text in done.events:
            assert id == len(history) + 1, "event ids are dense"
            assert json.loads(text)["event_id"] == id and json.loads(text)["type"] == kind
            history.append((id, kind, text))
        if done.custom_status is not None:
            row.custom_status, row.status_version = done.custom_status[0], row.status_version + 1
        for op, key, value, at in done.kv:
            if op == 0:
                row.kv_delta[key] = (value, at)
            elif op == 1:
                row.kv_delta[key] = (None, at)
            else:
                row.kv_delta = dict.fromkeys([*row.kv_delta, *row.kv], (None, at))
        if done.status is not None:
            row.status, row.output = done.status, done.output
            for key, (value, at) in row.kv_delta.items():
                row.kv.pop(key, None)
                if value is not None:
                    row.kv[key] = (value, at)
            row.kv_delta = {}
        self.work.extend(done.work)
        self.deleted_work.extend(done.cancelled)
        for instance, text, visible_at in done.messages:
            self.row_id += 1
            if visible_at > self.now:
                self.timers.append((visible_at, self.row_id, instance, text))
            else:
                self.queue.append((instance, self.row_id, text))

    # what tests look at
    def kinds(self, instance, execution_id=None):
        row = self.rows[instance]
        return [kind for _, kind, _ in row.histories[execution_id or row.execution_id]]

    def events(self, instance, execution_id=None):
        row = self.rows[instance]
        return [json.loads(text) for _, _, text in row.histories[execution_id or row.execution_id]]

    def values(self, instance):
        row = self.rows[instance]
        merged = {k: v for k, (v, _) in row.kv.items()}
        merged.update({k: v for k, (v, _) in row.kv_delta.items()})
        return {k: v for k, v in merged.items() if v is not None}
