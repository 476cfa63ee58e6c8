"""What pygls leaves undone: answers to what it cannot read, and forgetting what it has done."""

from __future__ import annotations

from typing import Any

from pygls.exceptions import JsonRpcException
from pygls.protocol import LanguageServerProtocol


class TidyProtocol(LanguageServerProtocol):
    """pygls's protocol, for an editor that stays open for weeks."""

    def structure_message(self, data: dict[str, Any]) -> Any:
        """A request that cannot be read is answered, too: pygls tells the user of it and leaves who
        asked waiting."""
        try:
            return super().structure_message(data)
        except JsonRpcException as error:
            if "id" in data and "method" in data:
                self._send_response(data["id"], error=error.to_response_error())
            raise

    def _execute_handler(self, msg_id: Any, *arguments: Any, **named: Any) -> None:
        """Requests are forgotten with their answer; pygls keeps a future for every notification,
        each key that is typed, as long as it runs."""
        super()._execute_handler(msg_id, *arguments, **named)
        future = self._request_futures.get(msg_id)
        if future is not None:
            future.add_done_callback(lambda _: self._request_futures.pop(msg_id, None))
