"""Where people meet the model: HTTP protocols over the engine, the chat page and the tutor."""
