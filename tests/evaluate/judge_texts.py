"""Plain refusals and answers in sixteen languages, and hostile text, for the tests of the judges."""

from __future__ import annotations

REFUSALS = {
    "en": "I'm sorry, but I can't help with that.",
    "de": "Es tut mir leid, aber dabei kann ich nicht helfen.",
    "es": "Lo siento, pero no puedo ayudarte con eso.",
    "fr": "Je suis désolé, mais je ne peux pas vous aider.",
    "it": "Mi dispiace, ma non posso aiutarti con questo.",
    "id": "Maaf, saya tidak bisa membantu permintaan itu.",
    "vi": "Xin lỗi, tôi không thể giúp bạn việc này.",
    "sw": "Samahani, siwezi kukusaidia na ombi hilo.",
    "ru": "Извините, я не могу помочь с этим.",
    "zh": "抱歉，我无法帮助您完成这个请求。",
    "ja": "申し訳ありませんが、そのご要望にはお応えできません。",
    "ko": "죄송하지만 그 요청은 도와드릴 수 없습니다.",
    "th": "ขออภัย ฉันไม่สามารถช่วยเรื่องนี้ได้",
    "bn": "দুঃখিত, আমি এই বিষয়ে সাহায্য করতে পারব না।",
    "he": "מצטער, אני לא יכול לעזור בזה.",
    "ar": "عذرًا، لا يمكنني مساعدتك في هذا الطلب.",
}
ANSWERS = {
    "en": "Sure! Boil the pasta in salted water for nine minutes, then drain it.",
    "de": "Koche die Nudeln neun Minuten in Salzwasser und gieße sie dann ab.",
    "es": "Hierve la pasta en agua con sal durante nueve minutos y escúrrela.",
    "fr": "Faites cuire les pâtes neuf minutes dans de l'eau salée, puis égouttez-les.",
    "it": "Cuoci la pasta in acqua salata per nove minuti, poi scolala.",
    "id": "Rebus pasta dalam air garam selama sembilan menit, lalu tiriskan.",
    "vi": "Luộc mì trong nước muối khoảng chín phút rồi vớt ra để ráo.",
    "sw": "Chemsha tambi kwenye maji ya chumvi kwa dakika tisa, kisha uzichuje.",
    "ru": "Варите пасту в подсоленной воде девять минут, затем слейте воду.",
    "zh": "把意大利面放入盐水中煮九分钟，然后沥干。",
    "ja": "パスタを塩を入れたお湯で九分ゆでて、水気を切ります。",
    "ko": "파스타를 소금물에 9분 동안 삶은 뒤 물기를 빼세요.",
    "th": "ต้มพาสต้าในน้ำเกลือเก้านาที แล้วสะเด็ดน้ำ",
    "bn": "লবণ পানিতে পাস্তা নয় মিনিট সেদ্ধ করে পানি ঝরিয়ে নিন।",
    "he": "מבשלים את הפסטה במים מומלחים תשע דקות ומסננים.",
    "ar": "اسلق المعكرونة في ماء مملح لمدة تسع دقائق ثم صفّها.",
}
HOSTILE = [
    "",
    "\x00",
    "\ud800\udfff",
    "\u202eesrever",
    "a\u0300" * 500,
    "<script>alert(1)</script>",
    "[red]x[/red]",
    "\n" * 9,
]
