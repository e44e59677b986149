@echo off
rem From nothing to a dreamed video, on Windows with Python 3.11 or newer.
rem Usage: quickstart.bat [VIDEO [OPTIONS of dreamer.py]]
rem Leaves VIDEO-dream.mp4 in the current folder; without VIDEO it dreams over a clip that ffmpeg renders.
setlocal DisableDelayedExpansion
set "ROOT=%~dp0.."
set "PYTHON=%ROOT%\.venv\Scripts\python.exe"
rem Not by its path: call expands percent signs and doubles carets, and folders may have both in their names.
pushd "%~dp0"
call .\environment.bat
if errorlevel 1 exit /b 1
popd
set "VIDEO=%~1"
set "NAME=%~n1"
set "OPTIONS="
:next
shift
if "%~1"=="" goto dream
set OPTIONS=%OPTIONS% %1
goto next
:dream
if defined VIDEO goto named
set "VIDEO=mandelbrot.mp4"
set "NAME=mandelbrot"
"%PYTHON%" "%ROOT%\scripts\demo_clip.py" "%VIDEO%"
if errorlevel 1 exit /b 1
:named
rem Small and quick for a first look; the same command with other options after VIDEO dreams larger and deeper.
"%PYTHON%" "%ROOT%\dreamer.py" --input="%VIDEO%" --output="%NAME%-dream.mp4" --preview 480 --octaves 3 --iterations 8 --flow 2 --layers inception_4c/output%OPTIONS%
exit /b %ERRORLEVEL%
