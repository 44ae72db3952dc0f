// SPDX-License-Identifier: Apache-2.0
// The words that items are made of. Changing one changes items: raise the versions in family.cc.
#pragma once

#include <array>
#include <string_view>

namespace puna::check {

inline constexpr std::array<std::string_view, 64> kNames = {
    "Ada",  "Ben",   "Cara",  "Dan",  "Eva",   "Finn", "Gina", "Hugo", "Ida",  "Jack", "Kim",
    "Leo",  "Mia",   "Noah",  "Olga", "Paul",  "Quin", "Rosa", "Sam",  "Tina", "Uma",  "Vera",
    "Will", "Yara",  "Zoe",   "Alan", "Bella", "Carl", "Dora", "Emil", "Fay",  "Glen", "Hana",
    "Ian",  "Jane",  "Kurt",  "Lara", "Max",   "Nina", "Otto", "Pia",  "Ralf", "Sara", "Tom",
    "Ursa", "Vic",   "Wanda", "Xena", "Yves",  "Zack", "Amy",  "Bob",  "Cleo", "Dirk", "Elsa",
    "Fred", "Greta", "Hans",  "Iris", "Joel",  "Katy", "Lena", "Mark", "Nora"};

inline constexpr std::array<std::string_view, 32> kFamilyNames = {
    "Stone", "Hill",  "Wood",  "Frost", "Lake",  "Brook", "Marsh", "Field",
    "Snow",  "Reed",  "Birch", "Ford",  "Grant", "Hale",  "Kent",  "Lowe",
    "Moss",  "North", "Page",  "Quill", "Rowe",  "Shaw",  "Thorn", "Vale",
    "West",  "York",  "Abbot", "Baker", "Clark", "Drake", "Evans", "Foster"};

inline constexpr std::array<std::string_view, 64> kThings = {
    "apples",  "pears",   "plums",    "lemons",  "melons",   "cherries", "grapes",  "figs",
    "nuts",    "beans",   "carrots",  "onions",  "tomatoes", "potatoes", "eggs",    "buns",
    "pies",    "cakes",   "cookies",  "candies", "books",    "pens",     "pencils", "cards",
    "stamps",  "coins",   "stickers", "marbles", "shells",   "stones",   "beads",   "buttons",
    "ribbons", "candles", "lamps",    "cups",    "plates",   "bowls",    "spoons",  "forks",
    "bottles", "boxes",   "baskets",  "bags",    "hats",     "scarves",  "socks",   "gloves",
    "shoes",   "toys",    "balls",    "kites",   "drums",    "flutes",   "bells",   "keys",
    "maps",    "tickets", "flags",    "roses",   "tulips",   "seeds",    "bricks",  "tiles"};

inline constexpr std::array<std::string_view, 32> kCities = {
    "Oslo",   "Paris",  "Rome",   "Lima",   "Cairo",  "Delhi",   "Tokyo",  "Berlin",
    "Madrid", "Vienna", "Dublin", "Athens", "Lisbon", "Prague",  "Warsaw", "Geneva",
    "Quito",  "Seoul",  "Hanoi",  "Dakar",  "Accra",  "Nairobi", "Sydney", "Perth",
    "Boston", "Dallas", "Denver", "Austin", "Turin",  "Milan",   "Lyon",   "Porto"};

inline constexpr std::array<std::string_view, 64> kAdjectives = {
    "red",   "blue",   "green", "black", "white", "brown",  "grey",  "golden", "silver", "small",
    "large", "tall",   "short", "long",  "wide",  "narrow", "old",   "new",    "young",  "soft",
    "hard",  "warm",   "cold",  "dry",   "wet",   "clean",  "dark",  "bright", "loud",   "quiet",
    "quick", "slow",   "calm",  "brave", "kind",  "wise",   "proud", "fair",   "sharp",  "round",
    "flat",  "deep",   "high",  "low",   "light", "heavy",  "sweet", "sour",   "fresh",  "plain",
    "rich",  "poor",   "early", "late",  "near",  "far",    "open",  "shut",   "free",   "full",
    "empty", "strong", "weak",  "busy"};

inline constexpr std::array<std::string_view, 64> kNouns = {
    "river",  "forest", "mountain", "garden",  "window", "door",   "table",  "chair",
    "bridge", "tower",  "castle",   "village", "market", "harbor", "island", "valley",
    "meadow", "desert", "ocean",    "beach",   "cloud",  "storm",  "rain",   "wind",
    "snow",   "fire",   "star",     "moon",    "sun",    "planet", "fox",    "wolf",
    "bear",   "deer",   "horse",    "cow",     "sheep",  "goat",   "dog",    "cat",
    "mouse",  "rabbit", "owl",      "eagle",   "duck",   "goose",  "fish",   "whale",
    "shark",  "turtle", "bee",      "ant",     "tree",   "flower", "leaf",   "root",
    "wagon",  "train",  "ship",     "boat",    "plane",  "engine", "clock",  "mirror"};

inline constexpr std::array<std::string_view, 32> kVerbs = {
    "finds",  "sees",   "paints", "draws",  "carries", "moves", "lifts", "drops",
    "opens",  "closes", "cleans", "builds", "breaks",  "fixes", "sells", "buys",
    "takes",  "brings", "sends",  "keeps",  "hides",   "shows", "turns", "pulls",
    "pushes", "holds",  "wants",  "needs",  "likes",   "loves", "knows", "follows"};

inline constexpr std::array<std::string_view, 16> kJobs = {
    "teacher", "doctor", "nurse",  "baker", "farmer", "pilot",  "driver", "painter",
    "writer",  "singer", "lawyer", "judge", "cook",   "waiter", "tailor", "plumber"};

inline constexpr std::array<std::string_view, 8> kColors = {"red",   "blue",  "green",  "black",
                                                            "white", "brown", "yellow", "purple"};

}  // namespace puna::check
