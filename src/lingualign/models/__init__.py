"""Loading models, finding their matrices, rendering chats."""
