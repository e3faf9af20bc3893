"""What all nodes share: the lifecycle."""

from __future__ import annotations

import time
import traceback
from typing import Any

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from come_nav.core.errors import ComeNavError
from come_nav.ros.endpoints import EndpointsNode


class ManagedNode(EndpointsNode):
    """A lifecycle node whose subclasses fill in ``setup``, ``start``, ``stop``, ``teardown`` and ``reports``.

    ``setup`` runs at configure, ``start`` at activate, ``stop`` at deactivate, ``teardown`` at clean-up. A ComeNavError
    in them fails the transition with its one line; anything else is a defect and is logged with its traceback.
    """

    def setup(self) -> None:
        """Make what the node needs: load models, open files, subscribe."""

    def start(self) -> None:
        """Begin to work."""

    def stop(self) -> None:
        """Cease to work; must be safe to call twice."""

    def teardown(self) -> None:
        """Release what ``setup`` made; what :meth:`subscribe`, :meth:`every` and the like made goes by itself."""

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Set up."""
        found = self._attempt("configure", self.setup)
        self.configured = found == TransitionCallbackReturn.SUCCESS
        if not self.configured:
            self._release()
            return found
        inputs = ", ".join(stream.topic for stream in self.streams)
        self.log.info(f"configured; inputs: {inputs or 'none'}")
        return found

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start."""
        found = self._attempt("activate", self.start)
        self.active = found == TransitionCallbackReturn.SUCCESS
        if self.active:
            self.active_since_s = time.monotonic()
            self.log.info("active")
        return super().on_activate(state) if self.active else found

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop."""
        self.active = False
        self._attempt("deactivate", self.stop)
        self.log.info("inactive")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Tear down."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and tear down from any state."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Stop and release everything, in whatever state; called at the end of the process as well."""
        if self.active:
            self.active = False
            self._attempt("shutdown", self.stop)
        if self.configured:
            self._release()

    def _release(self) -> None:
        self._attempt("clean-up", self.teardown)
        self.release_endpoints()
        self.configured = False

    def _attempt(self, what: str, action: Any) -> TransitionCallbackReturn:
        try:
            action()
        except ComeNavError as error:
            self.log.error(f"{what}: {error}")
            return TransitionCallbackReturn.FAILURE
        except Exception:
            self.log.error(f"{what}: {traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS
