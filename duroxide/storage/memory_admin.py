"""The cold calls on the memory model: the same answers as on a file."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from duroxide.errors import ProviderError

if TYPE_CHECKING:
    from duroxide.storage.memory import Instance, State

_ENDED = ("Completed", "Failed", "ContinuedAsNew")
_DELETED: tuple[str, ...] = ("instances_deleted", "executions_deleted", "events_deleted", "queue_messages_deleted")
_PRUNED: tuple[str, ...] = ("instances_processed", "executions_deleted", "events_deleted")


class MemoryAdmin:
    _state: State
    _lock: threading.RLock

    def _status(self, found: Instance) -> str:
        execution = found.executions.get(found.current)
        return "Running" if execution is None else execution.status

    def instance_info(self, instance: str) -> dict[str, Any] | None:
        with self._lock:
            found = self._state.instances.get(instance)
            if found is None:
                return None
            execution = found.executions[found.current]
            return {
                "instance_id": instance, "orchestration_name": found.name, "orchestration_version": found.version,
                "current_execution_id": found.current, "status": execution.status, "output": execution.output,
                "created_at": found.created_at, "updated_at": max(execution.started_at, execution.completed_at or 0),
                "parent_instance_id": found.parent,
            }  # fmt: skip

    def execution_info(self, instance: str, execution_id: int) -> dict[str, Any] | None:
        with self._lock:
            found = self._state.instances.get(instance)
            execution = found.executions.get(execution_id) if found is not None else None
            if execution is None:
                return None
            return {
                "execution_id": execution_id, "status": execution.status, "output": execution.output,
                "started_at": execution.started_at, "completed_at": execution.completed_at, "event_count": len(execution.events),
            }  # fmt: skip

    def executions(self, instance: str) -> list[int]:
        with self._lock:
            found = self._state.instances.get(instance)
            return sorted(found.executions) if found is not None else []

    def children(self, instance: str) -> list[str]:
        with self._lock:
            return [id for id, found in self._state.instances.items() if found.parent == instance]

    def tree(self, instance: str) -> list[str]:
        found, todo = [], [instance]
        while todo:
            found.append(todo.pop())
            todo += self.children(found[-1])
        return found

    def kv_values(self, instance: str) -> dict[str, str]:
        with self._lock:
            found = self._state.instances.get(instance)
            if found is None:
                return {}
            merged = {key: value for key, (value, _) in found.kv.items() if key not in found.kv_delta}
            merged.update({key: value for key, (value, _) in found.kv_delta.items() if value is not None})
            return merged

    def kv_value(self, instance: str, key: str) -> str | None:
        return self.kv_values(instance).get(key)

    def stats(self, instance: str) -> dict[str, int] | None:
        with self._lock:
            found = self._state.instances.get(instance)
            if found is None:
                return None
            events = found.executions[found.current].events
            texts = [text for _, text in events.values()]
            values = self.kv_values(instance)
            try:
                carried = json.loads(events[1][1]).get("carry_forward_events") or []
            except (KeyError, ValueError):  # no first event, or a broken one
                carried = []
            return {
                "history_event_count": len(texts), "history_size_bytes": sum(map(len, texts)), "queue_pending_count": len(carried),
                "kv_user_key_count": len(values), "kv_total_value_bytes": sum(map(len, values.values())),
            }  # fmt: skip

    def instances(self, status: str | None = None) -> list[str]:
        with self._lock:
            found = [id for id, each in self._state.instances.items() if status in (None, self._status(each))]
            return found[::-1]

    def system_metrics(self) -> dict[str, int]:
        with self._lock:
            every = list(self._state.instances.values())
            statuses = [self._status(found) for found in every]
            executions = [execution for found in every for execution in found.executions.values()]
            return {
                "total_instances": len(every), "total_executions": len(executions), "running_instances": statuses.count("Running"),
                "completed_instances": statuses.count("Completed"), "failed_instances": statuses.count("Failed"),
                "total_events": sum(len(execution.events) for execution in executions),
            }  # fmt: skip

    def queue_depths(self, now: int) -> dict[str, int]:
        with self._lock:
            messages = sum(message.token is None for message in self._state.messages.values())
            work = sum(row.token is None for row in self._state.work.values())
            return {"orchestrator_queue": messages, "worker_queue": work, "timer_queue": 0}

    # ── removal ──────────────────────────────────────────────────────────────────────────────────────────────

    def delete(self, ids: Sequence[str], force: bool) -> dict[str, int]:
        with self._lock:
            for id in ids:
                found = self._state.instances.get(id)
                if found is not None and self._status(found) == "Running" and not force:
                    raise ProviderError(f"Instance {ids[0]} is still running. Use force=true or cancel first.")
                for child in self.children(id):
                    if child not in ids:
                        raise ProviderError(f"Instance {id} has a child {child} that was created meanwhile: delete the tree again")
            counts = dict.fromkeys(_DELETED, 0)
            for id in ids:
                self._delete_one(id, counts)
            return counts

    def _delete_one(self, id: str, counts: dict[str, int]) -> None:
        state = self._state
        found = state.instances.pop(id, None)
        state.leases.pop(id, None)
        messages = [row for row, message in state.messages.items() if message.instance == id]
        work = [row for row, item in state.work.items() if item.key[0] == id]
        sessions = {state.work[row].session for row in work}
        for row in messages:
            del state.messages[row]
        for row in work:
            del state.work[row]
        for session in sessions - {item.session for item in state.work.values()}:
            state.sessions.pop(session or "", None)
        counts["queue_messages_deleted"] += len(messages) + len(work)
        if found is not None:
            counts["instances_deleted"] += 1
            counts["executions_deleted"] += len(found.executions)
            counts["events_deleted"] += sum(len(execution.events) for execution in found.executions.values())

    def delete_bulk(self, ids: Sequence[str] | None, completed_before: int | None, limit: int | None) -> dict[str, int]:
        total = dict.fromkeys(_DELETED, 0)
        with self._lock:
            roots = [i for i, found in self._state.instances.items() if found.parent is None and self._status(found) in _ENDED]
            for root in self._chosen(roots, ids, completed_before, limit):
                try:
                    counts = self.delete(self.tree(root), False)
                except ProviderError:
                    continue  # a child runs
                for name, count in counts.items():
                    total[name] += count
        return total

    def _chosen(self, found: Iterable[str], ids: Sequence[str] | None, before: int | None, limit: int | None) -> list[str]:
        chosen = [id for id in found if ids is None or id in ids]
        if before is not None:
            ended = {id: self._state.instances[id].executions[self._state.instances[id].current].completed_at for id in chosen}
            chosen = [id for id, at in ended.items() if at is not None and at < before]
        return chosen if limit is None else chosen[:limit]

    def prune(self, instance: str, keep_last: int | None, completed_before: int | None) -> dict[str, int]:
        with self._lock:
            found = self._state.instances.get(instance)
            removed = events = 0
            for index, id in enumerate(sorted(found.executions, reverse=True) if found is not None else ()):
                assert found is not None
                execution = found.executions[id]
                old = completed_before is None or (execution.completed_at is not None and execution.completed_at < completed_before)
                if id != found.current and execution.status != "Running" and (keep_last is None or index >= keep_last) and old:
                    removed, events = removed + 1, events + len(execution.events)
                    del found.executions[id]
            return {"instances_processed": 1, "executions_deleted": removed, "events_deleted": events}

    def prune_bulk(
        self, ids: Sequence[str] | None, before: int | None, limit: int | None, keep_last: int | None, completed_before: int | None
    ) -> dict[str, int]:
        total = dict.fromkeys(_PRUNED, 0)
        with self._lock:
            for instance in self._chosen(self._state.instances, ids, before, limit):
                for name, count in self.prune(instance, keep_last, completed_before).items():
                    total[name] += count
        return total
