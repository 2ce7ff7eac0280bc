"""Client calls over real stores, without a runtime: the tests commit the turns themselves."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time

import pytest

from duroxide import errors
from duroxide.client import Client
from duroxide.options import InstanceFilter, PruneOptions
from duroxide.results import InstanceInfo
from duroxide.runtime import clock
from duroxide.storage._queue import Queue
from duroxide.storage.base import KV_SET, Appetite, Done, Request, TurnDone
from duroxide.storage.memory import MemoryStore
from duroxide.storage.sqlite import open_sqlite


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    made = MemoryStore() if request.param == "memory" else open_sqlite(str(tmp_path / "client.db"))
    yield made
    made.close()


@pytest.fixture
def client(store):
    return Client(store)


class World:
    """Plays the runtime: claims what a client sent and commits a turn that says what the test wants."""

    def __init__(self, store):
        self.queue = Queue.of(store)
        self.numbers = itertools.count()

    def claim(self):
        """{instance: (lease, [decoded messages])} of everything that is visible now."""
        appetite = Appetite(f"test-{next(self.numbers)}", turns=100)
        taken = self.queue.submit(Request(clock.now(), None, appetite))
        return {turn.instance: turn for turn in taken.turns}

    def messages(self):
        return {name: [json.loads(text) for _, text, _ in turn.messages] for name, turn in self.claim().items()}

    def turn(
        self, instance, *, status=None, output=None, events=(), custom_status=None, kv=(), parent=None, next_execution=False
    ):
        """Commit one turn of an instance that has a message waiting."""
        claimed = self.claim()[instance]
        first = claimed.execution_id == 0 or next_execution
        execution = claimed.execution_id + 1 if first else claimed.execution_id
        done = TurnDone(claimed.lease, instance, execution)
        done.consumed = [row for row, _, _ in claimed.messages]
        last = 0 if first else claimed.last_event_id
        if first:
            done.name, done.version, done.parent, done.pinned = "o", "1.0.0", parent, (0, 1, 32)
            events = [("OrchestrationStarted", {"name": "o", "version": "1.0.0", "input": "null"}), *events]
        for number, (kind, fields) in enumerate(events, last + 1):
            done.events.append((number, kind, event(instance, execution, number, kind, fields)))
        done.status, done.output, done.custom_status = status, output, custom_status
        done.kv = [(KV_SET, key, value, clock.now()) for key, value in kv]
        hand_in = Done()
        hand_in.turns = [done]
        taken = self.queue.submit(Request(clock.now(), hand_in))
        assert taken.turn_codes == [0]

    def run(self, client, instance, **turn):
        """Start an instance and commit its first turn."""
        if turn.get("parent") is None:
            client.start_orchestration(instance, "o")
        else:
            item = {"StartOrchestration": {"instance": instance, "orchestration": "o", "input": "null", "execution_id": 1}}
            hand_in = Done()
            hand_in.messages = [(instance, json.dumps(item), 0)]
            self.queue.submit(Request(clock.now(), hand_in))
        self.turn(instance, **turn)


def event(instance, execution, number, kind, fields):
    envelope = {
        "event_id": number, "source_event_id": fields.get("source_event_id"), "instance_id": instance,
        "execution_id": execution, "timestamp_ms": 5, "duroxide_version": "0.1.32", "type": kind,
    }  # fmt: skip
    return json.dumps({**envelope, **fields})


@pytest.fixture
def world(store):
    return World(store)


class TestSending:
    def test_messages_are_those_of_the_reference(self, client, world):
        client.start_orchestration("a", "o", {"x": "é"})
        client.start_orchestration_versioned_typed("b", "o", None, "1.2.3-rc.1")
        client.start_orchestration_typed("c", "o", "text")
        client.enqueue_event("c", "q", [1])
        client.raise_event("c", "e")
        client.cancel_instance("c", "why")
        sent = world.messages()
        start = sent["a"][0]["StartOrchestration"]
        assert (start["instance"], start["orchestration"], start["version"]) == ("a", "o", None)
        assert start["input"] == '{"x": "\\u00e9"}'
        assert sent["b"][0]["StartOrchestration"]["version"] == "1.2.3-rc.1"
        assert sent["c"] == [
            {"StartOrchestration": {**start, "instance": "c", "input": '"text"'}},
            {"QueueMessage": {"instance": "c", "name": "q", "data": "[1]"}},
            {"ExternalRaised": {"instance": "c", "name": "e", "data": "null"}},
            {"CancelInstance": {"instance": "c", "reason": "why"}},
        ]

    def test_a_cancel_without_reason_has_an_empty_one(self, client, world):
        client.start_orchestration("a", "o")
        client.cancel_instance("a")
        assert world.messages()["a"][1] == {"CancelInstance": {"instance": "a", "reason": ""}}

    def test_many_start_in_one_transaction_or_none(self, client, world, store):
        calls = []
        exchange = store.exchange
        client.start_orchestrations([])
        store.exchange = lambda requests: (calls.append(len(requests)), exchange(requests))[1]
        client.start_orchestrations([("a", "o"), ("b", "o", 5), ("c", "o", None, "1.0.0")])
        assert len(calls) == 1
        with pytest.raises(errors.OptionError, match="reserved sub-orchestration marker"):
            client.start_orchestrations([("d", "o"), ("sub::x", "o")])
        with pytest.raises(TypeError, match="argument 'orchestration_name'"):
            client.start_orchestrations((name, 5) for name in "ef")
        for odd in (("g",), "go", ("g", "o", 1, "1.0.0", 2), None):
            with pytest.raises(TypeError, match=r"^start 1 is .*, expected \(instance_id, name\[, input\[, version\]\]\)$"):
                client.start_orchestrations([("d", "o"), odd])
        del store.exchange
        assert sorted(world.messages()) == ["a", "b", "c"]

    @pytest.mark.parametrize("instance", ["sub::x", "x::sub::4", "x::sub::"])
    def test_ids_with_the_reserved_marker_are_refused(self, client, world, instance):
        expected = f"^Invalid input: instance id '{instance}' uses the reserved sub-orchestration marker 'sub::'$"
        with pytest.raises(RuntimeError, match=expected) as raised:
            client.start_orchestration(instance, "o")
        assert isinstance(raised.value, ValueError)
        assert world.messages() == {}

    @pytest.mark.parametrize("instance", ["", "x\x00y", "xsub::y", "ünï", "a b", "'; drop table instances; --", "x" * 5000])
    def test_other_ids_are_data(self, client, world, instance):
        world.run(client, instance, status="Completed", output="1")
        assert client.get_status(instance).output == 1
        assert client.list_all_instances() == [instance]

    def test_a_version_that_is_none_is_refused(self, client):
        with pytest.raises(TypeError, match="argument 'version': 'NoneType' object cannot be converted to 'PyString'"):
            client.start_orchestration_versioned("a", "o", None, None)
        with pytest.raises(errors.OptionError, match="Version should be valid semver: 'v1' is not"):
            client.start_orchestration_versioned("a", "o", None, "v1")

    WRONG = [
        (lambda c: c.start_orchestration(5, "o"), TypeError, "argument 'instance_id': 'int' object cannot be converted to 'Py"),
        (lambda c: c.start_orchestration("a", 5), TypeError, "argument 'orchestration_name': 'int' object"),
        (lambda c: c.start_orchestration("a", "o", object()), TypeError, "^Object of type object is not JSON serializable$"),
        (lambda c: c.start_orchestration("\ud800", "o"), UnicodeEncodeError, "surrogates not allowed"),
        (lambda c: c.raise_event("a", 5), TypeError, "argument 'event_name': 'int' object"),
        (lambda c: c.raise_event(b"a", "e"), TypeError, "argument 'instance_id': 'bytes' object"),
        (lambda c: c.enqueue_event("a", None), TypeError, "argument 'queue_name': 'NoneType' object"),
        (lambda c: c.cancel_instance("a", 5), TypeError, "argument 'reason': 'int' object cannot be converted to 'PyString'"),
        (lambda c: c.get_status(None), TypeError, "argument 'instance_id': 'NoneType' object"),
        (lambda c: c.get_kv_value("a", 5), TypeError, "argument 'key': 'int' object"),
        (lambda c: c.list_instances_by_status(5), TypeError, "argument 'status': 'int' object"),
        (lambda c: c.get_execution_info("a", "x"), TypeError, "argument 'execution_id': 'str' object cannot be interpreted"),
        (lambda c: c.read_execution_history("a", 2**63), OverflowError, "Python int too large to convert to C long"),
        (lambda c: c.delete_instance("a", 1), TypeError, "argument 'force': 'int' object cannot be converted to 'PyBool'"),
        (lambda c: c.delete_instance_bulk({}), TypeError, "argument 'filter': 'dict' object cannot be converted to 'Instance"),
        (lambda c: c.prune_executions("a", 5), TypeError, "argument 'options': 'int' object cannot be converted to 'PruneO"),
        (lambda c: c.prune_executions_bulk(None, 5), TypeError, "argument 'options': 'int' object cannot be converted"),
        (lambda c: c.wait_for_orchestration("a", None), TypeError, "argument 'timeout_ms': 'NoneType' object cannot be inter"),
        (lambda c: c.wait_for_orchestration("a", 2**63), OverflowError, "Python int too large to convert to C long"),
        (lambda c: c.wait_for_status_change("a", -1), OverflowError, "can't convert negative int to unsigned"),
        (lambda c: c.wait_for_status_change("a", 0, 1.5), TypeError, "argument 'poll_interval_ms': 'float' object"),
        (lambda c: c.wait_for_status_change("a", 0, 1, -1), OverflowError, "can't convert negative int to unsigned"),
        (lambda c: c.wait_for_kv_value("a", "k", -1), OverflowError, "can't convert negative int to unsigned"),
    ]

    @pytest.mark.parametrize(("call", "error", "text"), WRONG)
    def test_arguments_of_the_wrong_kind_are_refused_at_the_call(self, client, world, call, error, text):
        with pytest.raises(error, match=text):
            call(client)
        assert world.messages() == {}


class TestStatus:
    def test_not_found_until_the_first_turn(self, client, world):
        client.start_orchestration("a", "o")
        assert vars(client.get_status("a")) == {
            "status": "NotFound", "output": None, "error": None, "custom_status": None, "custom_status_version": 0,
        }  # fmt: skip
        world.turn("a", custom_status=("half",))
        assert vars(client.get_status("a")) == {
            "status": "Running", "output": None, "error": None, "custom_status": "half", "custom_status_version": 1,
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("status", "stored", "expected"),
        [
            ("Completed", '{"v": [1, 2]}', ("Completed", {"v": [1, 2]}, None)),
            ("Completed", "not json", ("Completed", "not json", None)),
            ("Completed", "null", ("Completed", None, None)),
            ("Failed", "canceled: why", ("Failed", None, "canceled: why")),
            ("Failed", '"x"', ("Failed", None, '"x"')),
            ("ContinuedAsNew", '"next"', ("Running", None, None)),
        ],
    )
    def test_status_output_and_error(self, client, world, status, stored, expected):
        world.run(client, "a", status=status, output=stored)
        found = client.get_status("a")
        assert (found.status, found.output, found.error) == expected

    def test_a_history_that_cannot_be_read_does_not_hide_the_status(self, client, world):
        world.run(client, "a", status="Failed", output="poison: x", events=[("FutureEvent", {})])
        assert client.get_status("a").error == "poison: x"
        with pytest.raises(errors.OrchestrationFailed, match="^poison: x$"):
            client.wait_for_orchestration_typed("a", 0)
        expected = "^read: Failed to deserialize event: unknown variant `FutureEvent`, expected one of `OrchestrationStarted`, "
        with pytest.raises(RuntimeError, match=expected):
            client.read_execution_history("a", 1)


class TestWaiting:
    def test_a_finished_instance_is_returned_at_once(self, client, world):
        world.run(client, "a", status="Completed", output="[1]")
        assert client.wait_for_orchestration("a", 0).output == [1]
        assert client.wait_for_orchestration("a", -1).status == "Completed"
        assert client.wait_for_orchestration_typed("a") == [1]
        assert client.wait_for_status_change("a", 99).status == "Completed"

    @pytest.mark.parametrize("call", ["wait_for_orchestration", "wait_for_orchestration_typed", "wait_for_status_change"])
    def test_the_limit_is_kept_and_the_error_is_of_both_families(self, client, call):
        arguments = {"timeout_ms": 30}
        began = time.monotonic()
        with pytest.raises(RuntimeError, match="^Operation timed out$") as raised:
            getattr(client, call)("nobody", **arguments)
        assert isinstance(raised.value, TimeoutError)
        assert 0.03 <= time.monotonic() - began < 2

    def test_a_limit_of_zero_looks_once(self, client, monkeypatch):
        looks = []
        monkeypatch.setattr(client, "_status", lambda instance: looks.append(instance) or client_status(client, instance))
        with pytest.raises(errors.OperationTimeout):
            client.wait_for_orchestration("nobody", 0)
        assert 1 <= len(looks) <= 2

    def test_a_committed_turn_wakes_the_wait(self, client, world):
        client.start_orchestration("a", "o")
        committing = threading.Timer(0.1, lambda: world.turn("a", status="Completed", output='"done"'))
        committing.start()
        began = time.monotonic()
        assert client.wait_for_orchestration("a", -1).output == "done"
        assert time.monotonic() - began < 5
        committing.join()

    def test_a_wait_that_begins_too_late_for_the_signal_still_sees_the_turn(self, client, world, monkeypatch):
        """The turn is committed between the first look and the watch."""
        client.start_orchestration("a", "o")
        watch = client._queue.watch

        def commit_first(instance):
            world.turn("a", status="Completed", output="1")
            return watch(instance)

        client._queue = type("Queue", (), {"watch": staticmethod(commit_first)})
        assert client.wait_for_orchestration("a", 10_000).output == 1

    def test_status_changes_are_returned_by_version(self, client, world):
        world.run(client, "a", custom_status=("one",))
        assert client.wait_for_status_change("a", 0).custom_status == "one"
        with pytest.raises(errors.OperationTimeout):
            client.wait_for_status_change("a", 1, timeout_ms=10)
        client.raise_event("a", "e")
        world.turn("a", custom_status=(None,))
        found = client.wait_for_status_change("a", last_seen_version=1, poll_interval_ms=0)
        assert (found.custom_status, found.custom_status_version) == (None, 2)

    def test_kv_values_are_waited_for(self, client, world):
        with pytest.raises(TimeoutError, match="^Timed out waiting for value 'k' on instance 'a'$") as raised:
            client.wait_for_kv_value("a", "k", 10)
        assert isinstance(raised.value, RuntimeError)
        client.start_orchestration("a", "o")
        committing = threading.Timer(0.05, lambda: world.turn("a", kv=[("k", '{"v": 1}'), ("plain", "x")]))
        committing.start()
        assert client.wait_for_kv_value_typed("a", "k") == {"v": 1}
        committing.join()
        assert client.get_kv_value("a", "k") == '{"v": 1}' and client.get_kv_value_typed("a", "k") == {"v": 1}
        assert client.get_kv_value("a", "none") is client.get_kv_value_typed("nobody", "k") is None
        with pytest.raises(ValueError, match="Expecting value"):
            client.get_kv_value_typed("a", "plain")

    @pytest.mark.skipif(os.name == "nt", reason="needs a signal to this process")
    def test_ctrl_c_ends_a_wait_at_once(self, client):
        pressed = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
        pressed.start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            client.wait_for_orchestration("nobody", -1)
        assert time.monotonic() - began < 1.5
        pressed.join()
        assert client.get_status("nobody").status == "NotFound"

    FAILURES = [
        ({"Application": {"kind": "OrchestrationFailed", "message": "x", "retryable": False}}, errors.OrchestrationFailed),
        ({"Configuration": {"kind": "Nondeterminism", "resource": "", "message": "x"}}, errors.NondeterminismError),
        ({"Poison": {"attempt_count": 2, "max_attempts": 1, "message_type": {}, "message": ""}}, errors.PoisonError),
        ({"Infrastructure": {"operation": "x", "message": "x", "retryable": False}}, errors.OrchestrationFailed),
    ]

    @pytest.mark.parametrize(("details", "expected"), FAILURES)
    def test_a_failure_is_raised_with_its_class_and_text(self, client, world, details, expected):
        world.run(client, "a", status="Failed", output="the text", events=[("OrchestrationFailed", {"details": details})])
        with pytest.raises(Exception, match="^the text$") as raised:
            client.wait_for_orchestration_typed("a")
        assert type(raised.value) is expected and raised.value.instance_id == "a"


def client_status(client, instance):
    return Client._status(client, instance)


class TestLooking:
    def test_unknown_instances(self, client):
        with pytest.raises(RuntimeError, match="^get_instance_info: Instance nopeX not found$") as raised:
            client.get_instance_info("nopeX")
        assert isinstance(raised.value, LookupError)
        with pytest.raises(errors.NotFound, match="^get_execution_info: Execution 7 not found for instance a1$"):
            client.get_execution_info("a1", 7)
        with pytest.raises(errors.NotFound, match="^prune_executions: Instance nopeX not found$"):
            client.prune_executions("nopeX")
        for force in (False, True):
            with pytest.raises(errors.NotFound, match="^Instance nopeX not found$"):
                client.delete_instance("nopeX", force)
        assert client.list_executions("x") == client.read_execution_history("x", 1) == []
        assert client.read_execution_history("x", -1) == []
        assert client.get_orchestration_stats("x") is None
        tree = client.get_instance_tree("q")
        assert (tree.root_id, tree.all_ids, tree.size) == ("q", ["q"], 1)

    def test_info_of_an_instance_and_its_executions(self, client, world):
        before = clock.now()
        world.run(client, "a")
        info = client.get_instance_info("a")
        assert (info.instance_id, info.orchestration_name, info.orchestration_version) == ("a", "o", "1.0.0")
        assert (info.current_execution_id, info.status, info.output, info.parent_instance_id) == (1, "Running", None, None)
        assert before - 1000 <= info.created_at <= info.updated_at <= clock.now()
        running = client.get_execution_info("a", 1)
        assert (running.execution_id, running.status, running.output, running.completed_at) == (1, "Running", None, None)
        assert before - 1000 <= running.started_at <= clock.now() and running.event_count == 1
        client.raise_event("a", "e")
        world.turn("a", status="Completed", output="[1]")
        ended = client.get_execution_info("a", 1)
        assert (ended.status, ended.output) == ("Completed", "[1]") and before <= ended.completed_at <= clock.now()
        assert client.get_instance_info("a").output == "[1]"
        info.status = "changed"
        assert isinstance(info, InstanceInfo) and client.get_instance_info("a").status == "Completed"

    def test_history(self, client, world):
        events = [
            ("ActivityScheduled", {"name": "f", "input": '{"k": 1}'}),
            ("ActivityCompleted", {"result": "[1]", "source_event_id": 2}),
            ("ExternalEventPersistent", {"name": "q", "data": "0"}),
            ("CustomStatusUpdated", {"status": "x"}),
        ]
        world.run(client, "a", events=events)
        found = client.read_execution_history("a", 1)
        assert [(e.event_id, e.kind, e.source_event_id, e.timestamp_ms, e.data) for e in found] == [
            (1, "OrchestrationStarted", None, 5, '{"name":"o","version":"1.0.0","input":null}'),
            (2, "ActivityScheduled", None, 5, '{"name":"f","input":{"k": 1}}'),
            (3, "ActivityCompleted", 2, 5, "[1]"),
            (4, "QueueEventDelivered", None, 5, '{"name":"q","data":0}'),
            (5, "CustomStatusUpdated", None, 5, None),
        ]
        assert client.read_execution_history("a", 2) == []

    def test_lists_and_numbers(self, client, world):
        world.run(client, "done", status="Completed", output="1")
        world.run(client, "failed", status="Failed", output="x")
        world.run(client, "runs", kv=[("k", "12345")])
        assert client.list_all_instances() == ["runs", "failed", "done"]
        assert client.list_instances_by_status("Completed") == ["done"]
        assert client.list_instances_by_status("completed") == client.list_instances_by_status("NotFound") == []
        metrics = client.get_system_metrics()
        assert (metrics.total_instances, metrics.total_executions, metrics.total_events) == (3, 3, 3)
        assert (metrics.running_instances, metrics.completed_instances, metrics.failed_instances) == (1, 1, 1)
        stats = client.get_orchestration_stats("runs")
        assert (stats.history_event_count, stats.kv_user_key_count, stats.kv_total_value_bytes) == (1, 1, 5)
        assert stats.history_size_bytes > 100 and stats.queue_pending_count == 0
        client.raise_event("runs", "e")
        depths = client.get_queue_depths()
        assert (depths.orchestrator_queue, depths.worker_queue, depths.timer_queue) == (1, 0, 0)


class TestRemoving:
    @pytest.fixture
    def family(self, client, world):
        """A finished root with a child and a grandchild, and an unrelated finished one."""
        world.run(client, "root")
        world.run(client, "root::sub::2", parent="root")
        world.run(client, "root::sub::2::sub::2", parent="root::sub::2", status="Completed", output="1")
        world.run(client, "other", status="Completed", output="1")

        def finish(*instances):
            for instance in instances:
                client.raise_event(instance, "e")
                world.turn(instance, status="Completed", output="1")

        return finish

    def test_a_child_cannot_be_deleted_alone(self, client, family):
        expected = "^Cannot delete sub-orchestration root::sub::2 directly. Delete the root orchestration instead.$"
        for force in (False, True):
            with pytest.raises(RuntimeError, match=expected):
                client.delete_instance("root::sub::2", force)

    def test_a_tree_in_which_something_runs_needs_force(self, client, family):
        family("root")
        with pytest.raises(RuntimeError, match="is still running. Use force=true or cancel first.$"):
            client.delete_instance("root")
        assert client.get_instance_tree("root").size == 3
        deleted = client.delete_instance("root", True)
        assert (deleted.instances_deleted, deleted.executions_deleted, deleted.events_deleted) == (3, 3, 3)
        assert client.list_all_instances() == ["other"] and client.get_status("root").status == "NotFound"

    def test_a_finished_tree_is_deleted_whole_and_its_id_is_free_again(self, client, world, family):
        family("root", "root::sub::2")
        assert client.delete_instance("root").instances_deleted == 3
        world.run(client, "root", status="Completed", output='"again"')
        assert client.get_status("root").output == "again"

    def test_bulk_takes_finished_roots_only(self, client, family):
        assert client.delete_instance_bulk(InstanceFilter([])).instances_deleted == 0
        assert client.delete_instance_bulk(InstanceFilter(limit=0)).instances_deleted == 0
        assert client.delete_instance_bulk(InstanceFilter(completed_before=5)).instances_deleted == 0
        chosen = InstanceFilter(["root", "root::sub::2::sub::2", "unknown", "other"])
        assert client.delete_instance_bulk(chosen).instances_deleted == 1
        assert sorted(client.list_all_instances()) == ["root", "root::sub::2", "root::sub::2::sub::2"]
        family("root", "root::sub::2")
        assert client.delete_instance_bulk(InstanceFilter(limit=-1)).instances_deleted == 3

    @pytest.fixture
    def executions(self, client, world):
        """An instance in its fourth execution."""
        world.run(client, "many", status="ContinuedAsNew", output="2")
        for number in (3, 4):
            client.raise_event("many", "next")
            world.turn("many", next_execution=True, status="ContinuedAsNew", output=str(number))
        client.raise_event("many", "next")
        world.turn("many", next_execution=True)
        assert client.list_executions("many") == [1, 2, 3, 4]

    @pytest.mark.parametrize(
        ("options", "left"),
        [
            (None, [4]),
            (PruneOptions(), [4]),
            (PruneOptions(keep_last=0), [4]),
            (PruneOptions(keep_last=1), [4]),
            (PruneOptions(keep_last=3), [2, 3, 4]),
            (PruneOptions(keep_last=-1), [1, 2, 3, 4]),
            (PruneOptions(keep_last=2**40), [1, 2, 3, 4]),
            (PruneOptions(completed_before=5), [1, 2, 3, 4]),
            (PruneOptions(completed_before=-1), [1, 2, 3, 4]),
            (PruneOptions(completed_before=2**60), [4]),
            (PruneOptions(keep_last=2, completed_before=2**60), [3, 4]),
        ],
    )
    def test_prune_keeps_the_current_execution_and_what_the_options_say(self, client, executions, options, left):
        pruned = client.prune_executions("many", options)
        assert client.list_executions("many") == left
        assert (pruned.executions_deleted, pruned.events_deleted) == (4 - len(left), 4 - len(left))
        assert client.get_status("many").status == "Running"

    def test_prune_in_bulk(self, client, executions, family):
        assert client.prune_executions_bulk(InstanceFilter(["unknown"])).instances_processed == 0
        pruned = client.prune_executions_bulk(InstanceFilter(["many", "other"]), PruneOptions(keep_last=2))
        assert (pruned.instances_processed, pruned.executions_deleted) == (2, 2)
        assert client.list_executions("many") == [3, 4]


def test_objects_that_are_no_provider():
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute '_native'"):
        Client(None)
    with pytest.raises(TypeError, match="argument 'provider': 'int' object cannot be converted to 'PySqliteProvider'"):
        Client(type("P", (), {"_native": 5})())


def test_clients_of_one_store_share_their_queue(store):
    assert Client(store)._queue is Client(store)._queue
